// AVX-512 with VNNI and VBMI (Ice Lake, Zen 4 and later): two blocks to a register, permuted into place by one vpermb.
#pragma once

#include <cstdint>

namespace {
constexpr int LANES = 16;
}
#include "runtime/native/isa/vectors.hpp"
//
#include "runtime/native/isa/bytes256.hpp"

namespace {

// 32 registers: 12 integer and 12 float sums hide vpdpbusd's latency of 5 on two ports; 6 x 4 float sums for gemm.
constexpr int PANEL_VECTORS = 2, PANEL_TOKENS = 6;
constexpr int FEW_ROWS = 4;    // streams of reads per thread; few_tokens.hpp
constexpr int PANEL_FROM = 6;  // tokens: below, unpacking costs more than it saves
constexpr int GEMM_ROWS = 6, GEMM_VECTORS = 4, GEMM_TALL = 16;

typedef __m512i Chunk;
constexpr int CHUNK_BLOCKS = 2;
constexpr int SIGNED_BIAS = 128;  // vpdpbusd wants unsigned codes; sums of the activations take the 128 out again

INLINE float max_of(F v) { return _mm512_reduce_max_ps((__m512)v); }
INLINE float sum(F v) { return _mm512_reduce_add_ps((__m512)v); }

// Four registers' sums together: 13 instructions, where one by one they take 32.
INLINE void sum_rows(const F (&v)[4], float *to) {
    const auto fold = [](__m512 a, __m512 b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    const __m512 all = fold(fold((__m512)v[0], (__m512)v[1]), fold((__m512)v[2], (__m512)v[3]));  // a quarter each
    const __m512 pairs = _mm512_add_ps(all, _mm512_permute_ps(all, 0xb1));
    const __m512 quarters = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0x4e));
    _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, quarters)));
}

INLINE int32_t largest_lane(I v) { return _mm512_reduce_max_epi32((__m512i)v); }

INLINE F load_int8(const uint8_t *p) {
    return to_float((I)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
}
INLINE F load_half(const uint16_t *p) {
    return (F)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
INLINE F load_bf16(const uint16_t *p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
    return (F)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}

INLINE Chunk join(B32 first, B32 second) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

// Bytes FIRST .. +15 and FIRST + STRIDE .. +15 of p, as four quarters: low nibbles, high nibbles, of one and the other.
template <int FIRST, int STRIDE> INLINE Chunk nibbles2(const uint8_t *p) {
    alignas(64) static constexpr auto order = [] {
        struct { uint8_t at[64]; } o{};
        for (int i = 0; i < 64; ++i) o.at[i] = uint8_t(FIRST + i / 32 * STRIDE + i % 16);
        return o;
    }();
    const __m512i shift = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    const __m512i window = _mm512_maskz_loadu_epi8((1ull << (FIRST + STRIDE + 16)) - 1, p);
    const __m512i both = _mm512_permutexvar_epi8(_mm512_load_si512(&order), window);
    return _mm512_and_si512(_mm512_srlv_epi64(both, shift), _mm512_set1_epi8(15));
}

// pairs512.hpp specialises it for formats that can do better than joining two blocks.
template <class D> struct Pair {};

template <class D> INLINE Chunk chunk(const uint8_t *group, int c) {
    if constexpr (requires { Pair<D>::codes(group, c); }) return Pair<D>::codes(group, c);
    else return join(D::codes(group, 2 * c), D::codes(group, 2 * c + 1));
}

template <bool SIGNED> INLINE Chunk as_unsigned(Chunk codes) {
    return SIGNED ? _mm512_xor_si512(codes, _mm512_set1_epi8(int8_t(128))) : codes;
}

// total + scale * (codes . x) of chunk c, with one scale per 32 codes or one per 16; scale holds those of the group.
template <bool SIGNED, bool HALVES> INLINE F step(F total, Chunk codes, const int8_t *x, const F8 *scale, int c) {
    const I dot = (I)_mm512_dpbusd_epi32(_mm512_setzero_si512(), as_unsigned<SIGNED>(codes), _mm512_loadu_si512(x));
    const __m512i first = HALVES ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                                 : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i order = _mm512_add_epi32(first, _mm512_set1_epi32(HALVES ? c % 2 * 4 : c * 2));
    const __m512 scales = _mm512_castps256_ps512((__m256)scale[HALVES ? c / 2 : 0]);
    return total + to_float(dot) * (F)_mm512_permutexvar_ps(order, scales);
}

INLINE I repeat4(const int8_t *x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return I{} + four;
}
template <bool SIGNED> INLINE I panel_dot(I total, const uint8_t *codes, I x) {
    return (I)_mm512_dpbusd_epi32((__m512i)total, _mm512_loadu_si512(codes), (__m512i)x);
}

// Dot products of a panel start at DOT_START + x, so that their bits are the float 1.5 * 2^23 + x, and one instruction
// takes that off and scales. Exact but for its rounding: |x| < 2^22, and a scale has at most 20 bits.
constexpr int32_t DOT_START = 0x4b400000;
INLINE F scaled(I dot, F scale) { return (F)_mm512_fmadd_ps((__m512)dot, (__m512)scale, (__m512)(scale * -12582912.0f)); }

// total + both products of two int16, for attention.
INLINE I dot2(I total, I a, I b) { return (I)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b); }

// Dwords 0 to 3 of LANES rows: rows 4 l + a, of l = 0 .. 3, fill the lanes of a register, which are transposed apart.
INLINE void columns4(const uint8_t *in, int64_t stride, I *out) {
    __m512i x[4];
    for (int a = 0; a < 4; ++a) {
        const auto row = [&](int l) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(in + (4 * l + a) * stride)); };
        x[a] = _mm512_castsi128_si512(row(0));
        x[a] = _mm512_mask_broadcast_i32x4(x[a], 0x00f0, row(1));
        x[a] = _mm512_mask_broadcast_i32x4(x[a], 0x0f00, row(2));
        x[a] = _mm512_mask_broadcast_i32x4(x[a], 0xf000, row(3));
    }
    const __m512i first = _mm512_unpacklo_epi32(x[0], x[1]), second = _mm512_unpacklo_epi32(x[2], x[3]);
    const __m512i third = _mm512_unpackhi_epi32(x[0], x[1]), fourth = _mm512_unpackhi_epi32(x[2], x[3]);
    out[0] = (I)_mm512_unpacklo_epi64(first, second), out[1] = (I)_mm512_unpackhi_epi64(first, second);
    out[2] = (I)_mm512_unpacklo_epi64(third, fourth), out[3] = (I)_mm512_unpackhi_epi64(third, fourth);
}

// Products of four bytes without a sign and four with one, in each lane; for latent attention.
struct ByteDots {
    static constexpr int ZERO = 128, LARGEST = 255;  // of the bytes without a sign: what stands for 0, and the largest

    static INLINE I dot(I total, I codes, I x) { return (I)_mm512_dpbusd_epi32((__m512i)total, (__m512i)codes, (__m512i)x); }

    // A byte of each of four rows to a lane: of 64 columns, in the order of COLUMN_OF.
    static INLINE void across(const uint8_t *const (&rows)[4], I *out) {
        const __m512i a = _mm512_loadu_si512(rows[0]), b = _mm512_loadu_si512(rows[1]);
        const __m512i c = _mm512_loadu_si512(rows[2]), d = _mm512_loadu_si512(rows[3]);
        const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
        const __m512i ab_high = _mm512_unpackhi_epi8(a, b), cd_high = _mm512_unpackhi_epi8(c, d);
        out[0] = (I)_mm512_unpacklo_epi16(ab, cd), out[1] = (I)_mm512_unpackhi_epi16(ab, cd);
        out[2] = (I)_mm512_unpacklo_epi16(ab_high, cd_high), out[3] = (I)_mm512_unpackhi_epi16(ab_high, cd_high);
    }
};

}  // namespace

#include "runtime/native/isa/rows_abreast.hpp"
