// ARMv8.0, without a dot product (Cortex-A72 and A53, as in the Raspberry Pi 4, 3 and Zero 2 W):
// smull and smlal multiply eight bytes to int16, where a few products fit before saddlp adds pairs
// of them up in int32. These processors do one of the former per cycle, so that eight products per
// cycle are their peak, and everything else should fit beside them.
#pragma once

#include "runtime/native/isa/arm/neon.hpp"

namespace {

// a . x of 16 codes, in eight lanes; and added to such sums.
INLINE int16x8_t multiply16(int8x16_t a, int8x16_t x) {
    return vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(x)), a, x);
}
INLINE int16x8_t multiply16(int16x8_t sum, int8x16_t a, int8x16_t x) {
    return vmlal_high_s8(vmlal_s8(sum, vget_low_s8(a), vget_low_s8(x)), a, x);
}

INLINE I dot_start(int, int) { return I{} + kDotStart; }

// Initial values of four dot products.
struct Starts {
    int32_t lanes[4];

    INLINE void set(int i, int32_t value) { lanes[i] = value; }
};
typedef Starts StartsOfLanes;

// The sums of codes . x of four blocks or halves of blocks, kApart activations apart, a lane each.
//
// Two products of the largest codes fit into int16: 128 * 127 * 2 = 32512. So do four of those
// that are not signed, which have up to six bits: 63 * 127 * 4 = 32004.
template <bool kSigned, int kApart>
INLINE I four_sums(const Starts &start, const B32 (&codes)[4], const int8_t *x) {
    const auto dot = [&](int i) {
        const int8x16_t low = vreinterpretq_s8_u8(codes[i].low),
                        high = vreinterpretq_s8_u8(codes[i].high);
        const int8_t *at = x + kApart * i;
        const int16x8_t first = multiply16(low, vld1q_s8(at));
        if constexpr (kSigned)
            return (I)vpadalq_s16(vpaddlq_s16(first), multiply16(high, vld1q_s8(at + 16)));
        else return (I)vpaddlq_s16(multiply16(first, high, vld1q_s8(at + 16)));
    };
    const I sums = pairs_added(pairs_added(dot(0), dot(1)), pairs_added(dot(2), dot(3)));
    return sums + load<I>(start.lanes);
}
// Codes of up to 112 (two products: 28448).
template <int kApart>
INLINE I four_sums(const Starts &start, const uint8x16_t (&codes)[4], const int8_t *x) {
    const auto dot = [&](int i) {
        const int8x16_t code = vreinterpretq_s8_u8(codes[i]);
        return (I)vpaddlq_s16(multiply16(code, vld1q_s8(x + kApart * i)));
    };
    const I sums = pairs_added(pairs_added(dot(0), dot(1)), pairs_added(dot(2), dot(3)));
    return sums + load<I>(start.lanes);
}

// codes . x of 64 codes of up to 48 (four products: 24384), those of a lane being the same bytes of
// each register.
INLINE I sums_of_lanes(const StartsOfLanes &start, const uint8x16_t (&codes)[4], const int8_t *x) {
    int16x8_t low, high;
    for (int r = 0; r < 4; ++r) {
        const int8x16_t code = vreinterpretq_s8_u8(codes[r]), at = vld1q_s8(x + 16 * r);
        low = r ? vmlal_s8(low, vget_low_s8(code), vget_low_s8(at))
                : vmull_s8(vget_low_s8(code), vget_low_s8(at));
        high = r ? vmlal_high_s8(high, code, at) : vmull_high_s8(code, at);
    }
    return pairs_added((I)vpaddlq_s16(low), (I)vpaddlq_s16(high)) + load<I>(start.lanes);
}

// The sixteen codes of a token that four steps of a tile take.
constexpr int kStepsPerLoad = 4;
INLINE int8x16_t load_activations(const int8_t *const *q, int at) { return vld1q_s8(q[0] + at); }

// How a tile of gemm/gemm.hpp adds up a block of kSteps times four codes of four rows:
//
//   low    | r0 c0 | r0 c1 | r0 c2 | r0 c3 | r1 c0 | ... |    int16
//   high   | r2 c0 | r2 c1 | r2 c2 | r2 c3 | r3 c0 | ... |
//
// kHeld steps fit into them. With kPairs their sums in pairs do, too, at the end of the block.
template <int kSteps, int kHeld, bool kPairs> struct LongSums {
    struct Sum {
        int16x8_t low, high;
        int32x4_t wide_low, wide_high;  // unused if a block fits into int16
    };

    static INLINE Sum begin(I) { return Sum(); }
    // `step` is a constant wherever this is inlined.
    static INLINE void add(Sum &sum, int step, const uint8_t *codes, int8x16_t sixteen) {
        const int8x16_t four = vreinterpretq_s8_u8(vld1q_u8(codes));
        const int8x16_t x = (int8x16_t)(I{} + ((I)sixteen)[step % 4]);  // one word, for every row
        if (step % kHeld == 0) {
            sum.low = vmull_s8(vget_low_s8(four), vget_low_s8(x));
            sum.high = vmull_high_s8(four, x);
        } else {
            sum.low = vmlal_s8(sum.low, vget_low_s8(four), vget_low_s8(x));
            sum.high = vmlal_high_s8(sum.high, four, x);
        }
        if (kHeld == kSteps || step % kHeld != kHeld - 1) return;
        sum.wide_low = step < kHeld ? vpaddlq_s16(sum.low) : vpadalq_s16(sum.wide_low, sum.low);
        sum.wide_high = step < kHeld ? vpaddlq_s16(sum.high) : vpadalq_s16(sum.wide_high, sum.high);
    }
    static INLINE I total(const Sum &sum, I start) {
        if constexpr (kHeld < kSteps) return (I)vpaddq_s32(sum.wide_low, sum.wide_high) + start;
        else if constexpr (kPairs)
            return (I)vpadalq_s16((int32x4_t)start, vpaddq_s16(sum.low, sum.high));
        else return (I)vpaddq_s32(vpaddlq_s16(sum.low), vpaddlq_s16(sum.high)) + start;
    }
};

// Products of a code, which panels have centered.
template <class D>
constexpr int kFitInt16 =
    32767 / (127 * (D::kLargest > 2 * D::kZero ? D::kLargest - D::kZero : D::kZero));
template <class D> constexpr int kStepsOf = D::kHalves ? 4 : 8;
template <class D>
constexpr int kHeldOf = kFitInt16<D> < kStepsOf<D> ? kFitInt16<D> / 2 * 2 : kStepsOf<D>;
template <class D>
using PanelSums = LongSums<kStepsOf<D>, kHeldOf<D>, kFitInt16<D> >= 2 * kHeldOf<D>>;

typedef void ByteDot;  // attention takes float32, which does as many products per instruction

}  // namespace

#include "runtime/native/isa/one_token_per_vector.hpp"
//
#include "runtime/native/isa/arm/token_lanes.hpp"
