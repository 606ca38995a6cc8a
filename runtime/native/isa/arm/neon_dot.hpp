// Dot products of four bytes in each lane: sdot, and with i8mm smmla.
#pragma once

#include "runtime/native/isa/arm/neon.hpp"

namespace {

INLINE I dot4(I total, uint8x16_t codes, int8x16_t x) {
    return (I)vdotq_s32((int32x4_t)total, vreinterpretq_s8_u8(codes), x);
}

// Where dot products of a panel start.
constexpr int32_t kDotStarts[4] = {kDotStart, kDotStart, kDotStart, kDotStart};
INLINE I dot_start(int i, int j) { return load_unchanged<I>(kDotStarts, i, j); }

// Initial values of four dot products, each in the first lane of sdot's accumulator.
struct Starts {
    int32_t lanes[4][4] = {};

    INLINE void set(int i, int32_t value) { lanes[i][0] = value; }
    INLINE I begin(int i) const { return load_again<I>(lanes[i]); }
};
struct StartsOfLanes {
    int32_t lanes[4];

    INLINE void set(int i, int32_t value) { lanes[i] = value; }
};

// The sums of codes . x of four blocks or halves of blocks, `apart` activations apart, a lane each.
template <bool kSigned, int kApart>
INLINE I four_sums(const Starts &start, const B32 (&codes)[4], const int8_t *x) {
    const auto dot = [&](int i) {
        const int8_t *at = x + kApart * i;
        return dot4(dot4(start.begin(i), codes[i].low, vld1q_s8(at)), codes[i].high,
                    vld1q_s8(at + 16));
    };
    return pairs_added(pairs_added(dot(0), dot(1)), pairs_added(dot(2), dot(3)));
}
template <int kApart>
INLINE I four_sums(const Starts &start, const uint8x16_t (&codes)[4], const int8_t *x) {
    const auto dot = [&](int i) {
        return dot4(start.begin(i), codes[i], vld1q_s8(x + kApart * i));
    };
    return pairs_added(pairs_added(dot(0), dot(1)), pairs_added(dot(2), dot(3)));
}

// codes . x of 64 codes, those of a lane being the same bytes of each register.
INLINE I sums_of_lanes(const StartsOfLanes &start, const uint8x16_t (&codes)[4], const int8_t *x) {
    I sum = load_again<I>(start.lanes);
    for (int r = 0; r < 4; ++r) sum = dot4(sum, codes[r], vld1q_s8(x + 16 * r));
    return sum;
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
// smmla multiplies two rows with two tokens, eight codes of each, twice as many as sdot. So
// registers of a tile hold the dot products of two rows with two tokens:
//   | r0 t0 | r0 t1 | r1 t0 | r1 t1 |
constexpr int kTokensPerVector = 2, kStepsPerLoad = 2;

// Two words of four rows, to eight bytes of rows 0 and 1, and of rows 2 and 3.
INLINE void interleave_rows(I *four) {
    for (int i = 0; i < 4; i += 2) {
        const int32x4_t first = (int32x4_t)four[i], second = (int32x4_t)four[i + 1];
        four[i] = (I)vzip1q_s32(first, second), four[i + 1] = (I)vzip2q_s32(first, second);
    }
}
INLINE int8x16_t load_activations(const int8_t *const *q, int at) {
    return vcombine_s8(vld1_s8(q[0] + at), vld1_s8(q[1] + at));
}
INLINE void store_interleaved(const I (&values)[2], int32_t *to) {
    const int32x4x2_t both = {(int32x4_t)values[0], (int32x4_t)values[1]};
    vst2q_s32(to, both);
}
INLINE void store_interleaved(const F (&values)[2], float *to) {
    const float32x4x2_t both = {(float32x4_t)values[0], (float32x4_t)values[1]};
    vst2q_f32(to, both);
}
template <class V, class T> INLINE V broadcast_tokens(const T *x) {
    return (V)vdupq_n_s64(load<int64_t>(x));
}
INLINE F load_row_scales(const float *x, int pair) {
    const float32x4_t four = vld1q_f32(x);
    return (F)(pair ? vzip2q_f32(four, four) : vzip1q_f32(four, four));
}
template <bool kSigned> INLINE I panel_dot(I total, const uint8_t *codes, int8x16_t x, int) {
    return (I)vmmlaq_s32((int32x4_t)total, vreinterpretq_s8_u8(vld1q_u8(codes)), x);
}

constexpr bool kShiftedScales = false;
INLINE F add_block(F total, I dots, F scale, const float *, const float *factors, int, int) {
    return total + scaled(dots, scale) * broadcast_tokens<F>(factors);
}
INLINE F add_minimum(F total, F minimum, const float *factors) {
    return total + minimum * broadcast_tokens<F>(factors);
}
#else
// The sixteen codes of a token that four steps take, one lane each.
constexpr int kStepsPerLoad = 4;
INLINE int8x16_t load_activations(const int8_t *const *q, int at) { return vld1q_s8(q[0] + at); }

// `step` is a constant wherever this is inlined.
template <bool kSigned> INLINE I panel_dot(I total, const uint8_t *codes, int8x16_t x, int step) {
    const int8x16_t four = vreinterpretq_s8_u8(vld1q_u8(codes));
    switch (step % 4) {
        case 0:
            return (I)vdotq_laneq_s32((int32x4_t)total, four, x, 0);
        case 1:
            return (I)vdotq_laneq_s32((int32x4_t)total, four, x, 1);
        case 2:
            return (I)vdotq_laneq_s32((int32x4_t)total, four, x, 2);
        default:
            return (I)vdotq_laneq_s32((int32x4_t)total, four, x, 3);
    }
}
#endif

// Dot products of four and four signed bytes in each lane, for latent attention.
struct ByteDot {
    static constexpr int kZero = 0, kLargest = 127;

    static INLINE I dot(I total, I codes, I x) {
        return dot4(total, (uint8x16_t)codes, (int8x16_t)x);
    }

    // A byte of each of four rows to a lane, of 16 columns.
    static INLINE void transpose_bytes(const uint8_t *const (&rows)[4], I *out) {
        const uint8x16x2_t ab = vzipq_u8(vld1q_u8(rows[0]), vld1q_u8(rows[1])),
                           cd = vzipq_u8(vld1q_u8(rows[2]), vld1q_u8(rows[3]));
        for (int i = 0; i < 2; ++i) {
            const uint16x8x2_t both =
                vzipq_u16(vreinterpretq_u16_u8(ab.val[i]), vreinterpretq_u16_u8(cd.val[i]));
            out[2 * i] = (I)both.val[0], out[2 * i + 1] = (I)both.val[1];
        }
    }
};

}  // namespace

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#include "runtime/native/isa/one_token_per_vector.hpp"
//
#include "runtime/native/isa/arm/token_lanes.hpp"
#endif
#include "runtime/native/isa/quad_sums.hpp"
