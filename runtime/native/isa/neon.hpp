// AArch64 with the dot product extension (Cortex-A76, as in the Raspberry Pi 5, and later); with
// i8mm, its matrix product.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace {
constexpr int kLanes = 4;
}
#include "runtime/native/isa/vectors.hpp"

namespace {

// Micro-kernel of GEMM, 4 tokens x 8 rows: 8 int32 sums of a block, 8 float sums and 3 operands of
// 32 registers (with i8mm twice as many sums, of two tokens each). sdot has a latency of 3 to 4
// cycles and two ports on a Cortex-A76: 8 sums keep both busy.
constexpr int kNRVectors = 2, kMR = 4;
// Streams of reads per thread (gemm/gemv.hpp). No constant of this file was timed on a board yet.
constexpr int kGemvRows = 2;
// Tokens from which GEMM is faster: with fewer, unpacking a panel costs more than it saves.
constexpr int kMinGemmTokens = 6;
// Micro-kernel of attention, 4 x 16: 16 sums, 4 registers of B, one broadcast of A.
constexpr int kAttnMR = 4, kAttnNRVectors = 4, kAttnTallMR = 8;

struct B32 {
    uint8x16_t low, high;
};
typedef B32 Chunk;  // the codes of one block
constexpr int kChunkBlocks = 1;
constexpr int kSignedBias = 0;  // codes are below 128, so that both kinds pass for signed

INLINE B32 load32(const uint8_t *p) { return {vld1q_u8(p), vld1q_u8(p + 16)}; }
INLINE void store32(uint8_t *p, B32 v) {
    vst1q_u8(p, v.low);
    vst1q_u8(p + 16, v.high);
}
INLINE B32 low4(B32 v) {
    return {vandq_u8(v.low, vdupq_n_u8(15)), vandq_u8(v.high, vdupq_n_u8(15))};
}
INLINE B32 high4(B32 v) { return {vshrq_n_u8(v.low, 4), vshrq_n_u8(v.high, 4)}; }
INLINE B32 nibbles(const uint8_t *p) {
    const uint8x16_t both = vld1q_u8(p);
    return {vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8(both, 4)};
}
INLINE B32 fifth_bits(uint32_t bits) {
    const uint8x8_t bit = vcreate_u8(0x8040201008040201);
    const auto spread = [&](uint32_t two) {
        const uint8x16_t bytes = vcombine_u8(vdup_n_u8(uint8_t(two)), vdup_n_u8(uint8_t(two >> 8)));
        return vandq_u8(vtstq_u8(bytes, vcombine_u8(bit, bit)), vdupq_n_u8(16));
    };
    return {spread(bits), spread(bits >> 16)};
}
template <int kShift, int kBits, int kTo> INLINE B32 field(B32 v) {
    const uint8x16_t mask = vdupq_n_u8((1 << kBits) - 1);
    const int8x16_t shift = vdupq_n_s8(-kShift);  // negative shifts right
    return {vshlq_n_u8(vandq_u8(vshlq_u8(v.low, shift), mask), kTo),
            vshlq_n_u8(vandq_u8(vshlq_u8(v.high, shift), mask), kTo)};
}
template <int kShift, int kBits> INLINE B32 upper_bits(B32 v) { return field<kShift, kBits, 4>(v); }

// 8 bytes of four 2-bit codes each.
INLINE B32 spread_pairs(const uint8_t *p) {
    const uint8x16_t bytes = vcombine_u8(vld1_u8(p), vld1_u8(p));
    const uint8x16_t order = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const int8x16_t shift = vreinterpretq_s8_u32(vdupq_n_u32(0xfafcfe00));  // 0, -2, -4, -6
    const uint8x16_t four = vdupq_n_u8(4), mask = vdupq_n_u8(3);
    return {vandq_u8(vshlq_u8(vqtbl1q_u8(bytes, order), shift), mask),
            vandq_u8(vshlq_u8(vqtbl1q_u8(bytes, vaddq_u8(order, four)), shift), mask)};
}

// Eights 0, 2, 1, 3.
INLINE B32 middle_swapped(B32 v) {
    return {vcombine_u8(vget_low_u8(v.low), vget_low_u8(v.high)),
            vcombine_u8(vget_high_u8(v.low), vget_high_u8(v.high))};
}
INLINE B32 bit_or(B32 a, B32 b) { return {vorrq_u8(a.low, b.low), vorrq_u8(a.high, b.high)}; }
INLINE B32 shuffle(B32 index, const int8_t *table16) {
    const uint8x16_t table = vld1q_u8(reinterpret_cast<const uint8_t *>(table16));
    return {vqtbl1q_u8(table, index.low), vqtbl1q_u8(table, index.high)};
}
template <bool kSigned> INLINE Chunk as_unsigned(const Chunk &codes) { return codes; }

INLINE F load_int8(const uint8_t *p) {
    const int8x8_t codes = vreinterpret_s8_u32(vdup_n_u32(load<uint32_t>(p)));
    return (F)vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(codes))));
}
INLINE F load_half(const uint16_t *p) { return (F)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
INLINE F load_bf16(const uint16_t *p) { return (F)vshll_n_u16(vld1_u16(p), 16); }
INLINE float half_to_float(const uint8_t *p) {
    __fp16 half;
    std::memcpy(&half, p, 2);
    return float(half);
}
INLINE F8 scales8(const uint8_t *p, int stride) {
    uint16_t half[8];
    for (int i = 0; i < 8; ++i) std::memcpy(&half[i], p + i * stride, 2);
    const F parts[2] = {load_half(half), load_half(half + 4)};
    return load<F8>(parts);
}

// Eight integers of a byte each.
INLINE F8 unsigned_bytes(uint64_t bytes) {
    const uint16x8_t wide = vmovl_u8(vcreate_u8(bytes));
    const float32x4_t parts[2] = {vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))),
                                  vcvtq_f32_u32(vmovl_u16(vget_high_u16(wide)))};
    return load<F8>(parts);
}
INLINE F8 signed_bytes(uint64_t bytes) {
    const int16x8_t wide = vmovl_s8(vcreate_s8(bytes));
    const float32x4_t parts[2] = {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))),
                                  vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)))};
    return load<F8>(parts);
}

INLINE float reduce_max(F v) { return vmaxvq_f32((float32x4_t)v); }
INLINE float reduce_add(F v) { return vaddvq_f32((float32x4_t)v); }

INLINE int32_t reduce_max(I v) { return vmaxvq_s32((int32x4_t)v); }

template <class D> INLINE Chunk chunk(const uint8_t *group, int c) { return D::codes(group, c); }

INLINE I dot4(I total, uint8x16_t codes, int8x16_t x) {
    return (I)vdotq_s32((int32x4_t)total, vreinterpretq_s8_u8(codes), x);
}

// total + scale * (codes . x) of chunk c, with one scale per 32 codes or one per 16; `scale` holds
// those of the group.
template <bool kSigned, bool kHalves>
INLINE F add_dot(F total, Chunk codes, const int8_t *x, const F8 *scale, int c) {
    const I low = dot4(I{}, codes.low, vld1q_s8(x));
    if constexpr (kHalves) {
        total += to_float(low) * scale[c / 4][c % 4 * 2];
        return total +
               to_float(dot4(I{}, codes.high, vld1q_s8(x + 16))) * scale[c / 4][c % 4 * 2 + 1];
    } else {
        return total + to_float(dot4(low, codes.high, vld1q_s8(x + 16))) * scale[0][c];
    }
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
// smmla multiplies two rows with two tokens, eight codes of each, twice as many as sdot. So
// registers of a tile hold the dot products of two rows with two tokens:
//   | r0 t0 | r0 t1 | r1 t0 | r1 t1 |
constexpr int kTokensPerVector = 2;

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
template <class V, class T> INLINE V broadcast_tokens(const T *x) {
    return (V)vdupq_n_s64(load<int64_t>(x));
}
INLINE F load_row_scales(const float *x, int pair) {
    const float32x4_t four = vld1q_f32(x);
    return (F)(pair ? vzip2q_f32(four, four) : vzip1q_f32(four, four));
}
template <bool kSigned> INLINE I panel_dot(I total, const uint8_t *codes, int8x16_t x) {
    return (I)vmmlaq_s32((int32x4_t)total, vreinterpretq_s8_u8(vld1q_u8(codes)), x);
}
#else
INLINE int8x16_t broadcast4(const int8_t *x) {
    return vreinterpretq_s8_s32(vdupq_n_s32(load<int32_t>(x)));
}
template <bool kSigned> INLINE I panel_dot(I total, const uint8_t *codes, int8x16_t x) {
    return dot4(total, vld1q_u8(codes), x);
}
#endif
constexpr int32_t kDotStart = 0;  // where dot products of a panel start; scaled() takes it off
INLINE F scaled(I dot, F scale) { return to_float(dot) * scale; }

// total + both products of a pair of int16, for attention.
INLINE I dot2_i16(I total, I a, I b) {
    const int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return total + (I)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
}

// 32-bit words 0 to 3 of kLanes rows: out[j] holds word j of each row.
INLINE void transpose4x4(const uint8_t *in, int64_t stride, I *out) {
    const auto row = [&](int i) { return vreinterpretq_u32_u8(vld1q_u8(in + i * stride)); };
    const uint32x4x2_t first = vtrnq_u32(row(0), row(1)), second = vtrnq_u32(row(2), row(3));
    out[0] = (I)vcombine_u32(vget_low_u32(first.val[0]), vget_low_u32(second.val[0]));
    out[1] = (I)vcombine_u32(vget_low_u32(first.val[1]), vget_low_u32(second.val[1]));
    out[2] = (I)vcombine_u32(vget_high_u32(first.val[0]), vget_high_u32(second.val[0]));
    out[3] = (I)vcombine_u32(vget_high_u32(first.val[1]), vget_high_u32(second.val[1]));
}

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
#endif
