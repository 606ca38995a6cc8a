// AVX2, FMA and F16C; with -mavxvnni, its 256-bit dot product.
#pragma once

#include <cstdint>

namespace {
constexpr int LANES = 8;
}
#include "runtime/native/isa/vectors.hpp"
//
#include "runtime/native/isa/bytes256.hpp"

namespace {

// Micro-kernels' tiles. 16 registers: 4 integer and 4 float sums, the weights, and room for a product.
constexpr int PANEL_VECTORS = 1, PANEL_TOKENS = 4;
constexpr int FEW_ROWS = 4;    // streams of reads per thread; few_tokens.hpp
constexpr int PANEL_FROM = 6;  // tokens: below, unpacking costs more than it saves
constexpr int GEMM_ROWS = 6, GEMM_VECTORS = 2, GEMM_TALL = 12;

typedef B32 Chunk;  // one block
constexpr int CHUNK_BLOCKS = 1;

INLINE float max_of(F v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
INLINE float sum(F v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

INLINE int32_t largest_lane(I v) {
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

INLINE F load_int8(const uint8_t *p) {
    return to_float((I)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
}
INLINE F load_half(const uint16_t *p) {
    return (F)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
INLINE F load_bf16(const uint16_t *p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return (F)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
}

#if defined(__AVXVNNI__)
constexpr int SIGNED_BIAS = 128;  // vpdpbusd wants unsigned codes; sums of the activations take the 128 out again

template <bool SIGNED> INLINE B32 as_unsigned(B32 codes) {
    return SIGNED ? _mm256_xor_si256(codes, _mm256_set1_epi8(int8_t(128))) : codes;
}
// By hand: GCC 12 does not end compiling _mm256_dpbusd_avx_epi32 here.
template <bool SIGNED> INLINE I dot4(I total, B32 codes, B32 x) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(total) : "x"(codes), "xm"(x));
    return total;
}
#else
constexpr int SIGNED_BIAS = 0;

template <bool SIGNED> INLINE B32 as_unsigned(B32 codes) { return codes; }

// vpmaddubsw adds pairs in 16 bits and saturates there: |code| <= 128 times |x| <= 127, twice, is 32512.
template <bool SIGNED> INLINE I dot4(I total, B32 codes, B32 x) {
    if constexpr (SIGNED) {
        x = _mm256_sign_epi8(x, codes);
        codes = _mm256_abs_epi8(codes);
    }
    const __m256i pairs = _mm256_maddubs_epi16(codes, x);
    return total + (I)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

// Dot products of a panel start at DOT_START + x, so that their bits are the float 1.5 * 2^23 + x, and one instruction
// takes that off and scales. Exact but for its rounding: |x| < 2^22, and a scale has at most 20 bits.
constexpr int32_t DOT_START = 0x4b400000;
INLINE F scaled(I dot, F scale) { return (F)_mm256_fmadd_ps((__m256)dot, (__m256)scale, (__m256)(scale * -12582912.0f)); }

// total + both products of two int16, for attention.
INLINE I dot2(I total, I a, I b) {
#if defined(__AVXVNNI__)
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(total) : "x"(a), "xm"(b));
    return total;
#else
    return total + (I)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#endif
}

template <class D> INLINE Chunk chunk(const uint8_t *group, int c) { return D::codes(group, c); }

// total + scale * (codes . x) of chunk c, with one scale per 32 codes or one per 16; scale holds those of the group.
template <bool SIGNED, bool HALVES> INLINE F step(F total, Chunk codes, const int8_t *x, const F8 *scale, int c) {
    const I dot = dot4<SIGNED>(I{}, as_unsigned<SIGNED>(codes), load32(reinterpret_cast<const uint8_t *>(x)));
    const __m256i first = HALVES ? _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1) : _mm256_setzero_si256();
    const __m256i order = _mm256_add_epi32(first, _mm256_set1_epi32(HALVES ? c % 4 * 2 : c));
    return total + to_float(dot) * (F)_mm256_permutevar8x32_ps((__m256)scale[HALVES ? c / 4 : 0], order);
}

INLINE I repeat4(const int8_t *x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return I{} + four;
}
template <bool SIGNED> INLINE I panel_dot(I total, const uint8_t *codes, I x) {
    return dot4<SIGNED>(total, load32(codes), (B32)x);
}

// Dwords 0 to 3 of LANES rows: rows a and 4 + a fill the halves of a register, which are transposed apart.
INLINE void columns4(const uint8_t *in, int64_t stride, I *out) {
    __m256i x[4];
    for (int a = 0; a < 4; ++a) {
        const auto row = [&](int l) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(in + (4 * l + a) * stride)); };
        x[a] = _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(1), 1);
    }
    const __m256i first = _mm256_unpacklo_epi32(x[0], x[1]), second = _mm256_unpacklo_epi32(x[2], x[3]);
    const __m256i third = _mm256_unpackhi_epi32(x[0], x[1]), fourth = _mm256_unpackhi_epi32(x[2], x[3]);
    out[0] = (I)_mm256_unpacklo_epi64(first, second), out[1] = (I)_mm256_unpackhi_epi64(first, second);
    out[2] = (I)_mm256_unpacklo_epi64(third, fourth), out[3] = (I)_mm256_unpackhi_epi64(third, fourth);
}

#if defined(__AVXVNNI__)
// Products of four bytes without a sign and four with one, in each lane; for latent attention.
struct ByteDots {
    static constexpr int ZERO = 128, LARGEST = 255;

    static INLINE I dot(I total, I codes, I x) { return dot4<false>(total, (B32)codes, (B32)x); }

    // A byte of each of four rows to a lane: of 32 columns.
    static INLINE void across(const uint8_t *const (&rows)[4], I *out) {
        const __m256i a = load32(rows[0]), b = load32(rows[1]), c = load32(rows[2]), d = load32(rows[3]);
        const __m256i ab = _mm256_unpacklo_epi8(a, b), cd = _mm256_unpacklo_epi8(c, d);
        const __m256i ab_high = _mm256_unpackhi_epi8(a, b), cd_high = _mm256_unpackhi_epi8(c, d);
        out[0] = (I)_mm256_unpacklo_epi16(ab, cd), out[1] = (I)_mm256_unpackhi_epi16(ab, cd);
        out[2] = (I)_mm256_unpacklo_epi16(ab_high, cd_high), out[3] = (I)_mm256_unpackhi_epi16(ab_high, cd_high);
    }
};
#else
typedef void ByteDots;  // products of bytes saturate here
#endif

}  // namespace

#include "runtime/native/isa/rows_abreast.hpp"
