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
constexpr int GEMM_ROWS = 6, GEMM_VECTORS = 4;

typedef __m512i Chunk;
constexpr int CHUNK_BLOCKS = 2;
constexpr int SIGNED_BIAS = 128;  // vpdpbusd wants unsigned codes; sums of the activations take the 128 out again

INLINE float max_of(F v) { return _mm512_reduce_max_ps((__m512)v); }
INLINE float sum(F v) { return _mm512_reduce_add_ps((__m512)v); }

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

// total + both products of two int16, for attention.
INLINE I dot2(I total, I a, I b) { return (I)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b); }

// LANES rows of LANES dwords, transposed in registers: four rounds of sixteen shuffles.
INLINE void transpose(const uint8_t *in, int64_t stride, uint8_t *out, int64_t out_stride) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in + i * stride);
    for (int i = 0; i < 8; ++i) {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 2; ++j) {
            a[4 * i + 2 * j] = _mm512_unpacklo_epi64(b[4 * i + j], b[4 * i + j + 2]);
            a[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(b[4 * i + j], b[4 * i + j + 2]);
        }
    }
    for (int i = 0; i < 4; ++i) {  // now a[4 r + i] holds columns i, i + 4, i + 8, i + 12 of rows 4 r .. 4 r + 3
        const __m512i low = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88), high = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
        const __m512i low2 = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88);
        const __m512i high2 = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
        _mm512_storeu_si512(out + i * out_stride, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(out + (i + 4) * out_stride, _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(out + (i + 8) * out_stride, _mm512_shuffle_i32x4(low, low2, 0xdd));
        _mm512_storeu_si512(out + (i + 12) * out_stride, _mm512_shuffle_i32x4(high, high2, 0xdd));
    }
}

}  // namespace
