// Steps of GEMV (gemm/gemv.hpp) of four blocks each, where one instruction adds four products of
// bytes to a lane. Two vector units are the limit of a Cortex-A76, so what need not pass through
// them does not:
//
// - Dot products start where their sum becomes a float by itself: at kDotStart, less the zero point
//   times the sum of the activations. Such starts are made once per token, and loaded into the
//   register that sdot overwrites, in place of a zero that a vector unit would make.
// - The sums of four blocks are added in pairs until each has a lane, so that one subtraction and
//   one multiply-add with four scales do for all.
//
// 256 weights of Q4_0 then take 48 operations of the two units (sdot 16, nibbles 16, addp 6,
// subtraction, scales and multiply-add 6, scales to float32 4), 24 cycles, where they took 62.
#pragma once

#include "runtime/native/gemm/decoders.hpp"

namespace {

// Loads what an instruction overwrites. The compiler would load it once and copy it, which takes a
// vector unit; loads have units of their own.
template <class V = int32x4_t> INLINE V load_again(const void *p) {
    V v;
    asm volatile("ldr %q0, %1" : "=w"(v) : "m"(*static_cast<const V *>(p)));
    return v;
}

// A lane for each register's sum.
INLINE I sums_of_four(const I (&v)[4]) {
    const int32x4_t low = vpaddq_s32((int32x4_t)v[0], (int32x4_t)v[1]);
    return (I)vpaddq_s32(low, vpaddq_s32((int32x4_t)v[2], (int32x4_t)v[3]));
}

// Where the dot product of a block or half of one starts, in the first lane.
struct Start {
    int32_t lanes[4];
};

// The float of four sums that began at kDotStart.
INLINE F started(I sums) { return (F)sums - kRoundMagic; }

INLINE I dot_from(const Start &start, uint8x16_t codes, const int8_t *x) {
    return dot4((I)load_again(&start), codes, vld1q_s8(x));
}
INLINE I dot_from(const Start &start, const B32 &codes, const int8_t *x) {
    return dot4(dot_from(start, codes.low, x), codes.high, vld1q_s8(x + 16));
}

template <BlockDecoder D> struct Steps<D> {
    static constexpr int N = 2, kBlocks = 4, kBiasLeft = 0;
    struct Codes {
        B32 block[kBlocks];
    };
    struct Input {
        const int8_t *q;
        Start start[D::kHalves ? 8 : 4];
    };

    static INLINE Codes codes(const uint8_t *g, int c) {
        return {D::codes(g, 4 * c), D::codes(g, 4 * c + 1), D::codes(g, 4 * c + 2),
                D::codes(g, 4 * c + 3)};
    }
    static INLINE Input input(const Token &x, int64_t block) {
        constexpr int kPerBlock = D::kHalves ? 2 : 1;
        const int32_t *sums = D::kHalves ? x.sum16 + 2 * block : x.sum32 + block;
        Input made{x.q + 32 * block, {}};
        for (int i = 0; i < 4 * kPerBlock; ++i)
            made.start[i].lanes[0] = kDotStart - kBias<D> * sums[i];
        return made;
    }
    static INLINE F add(F total, const Codes &codes, const Input &x, const F8 *scale, int c) {
        const B32 *b = codes.block;
        const Start *at = x.start;
        const int8_t *q = x.q;
        if constexpr (D::kHalves) {
            const I first[4] = {dot_from(at[0], b[0].low, q), dot_from(at[1], b[0].high, q + 16),
                                dot_from(at[2], b[1].low, q + 32),
                                dot_from(at[3], b[1].high, q + 48)};
            const I second[4] = {dot_from(at[4], b[2].low, q + 64),
                                 dot_from(at[5], b[2].high, q + 80),
                                 dot_from(at[6], b[3].low, q + 96),
                                 dot_from(at[7], b[3].high, q + 112)};
            total += started(sums_of_four(first)) * scale[c].low;
            return total + started(sums_of_four(second)) * scale[c].high;
        } else {
            const I dots[4] = {dot_from(at[0], b[0], q), dot_from(at[1], b[1], q + 32),
                               dot_from(at[2], b[2], q + 64), dot_from(at[3], b[3], q + 96)};
            return total + started(sums_of_four(dots)) * (c ? scale[0].high : scale[0].low);
        }
    }
};

}  // namespace

#include "runtime/native/isa/arm/byte_scales.hpp"
