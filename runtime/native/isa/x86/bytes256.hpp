// 32 codes in a 256-bit register: what AVX2 and AVX-512 share.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

typedef __m256i B32;

INLINE B32 load32(const uint8_t *p) { return _mm256_loadu_si256(reinterpret_cast<const B32 *>(p)); }
INLINE void store32(uint8_t *p, B32 v) { _mm256_storeu_si256(reinterpret_cast<B32 *>(p), v); }
INLINE B32 low4(B32 v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE B32 high4(B32 v) { return low4(_mm256_srli_epi16(v, 4)); }

// 16 bytes: their low nibbles, then their high ones.
INLINE B32 nibbles(const uint8_t *p) {
    const __m256i both =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    return low4(_mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4)));
}

// 16 where bit i of the word is set, for 32 codes.
INLINE B32 fifth_bits(uint32_t bits) {
    const __m256i order =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(int(bits)), order);
    const __m256i bit = _mm256_set1_epi64x(int64_t(0x8040201008040201));
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit),
                            _mm256_set1_epi8(16));
}

// (v >> kShift & 2^kBits - 1) << kTo: bits of codes that share bytes.
template <int kShift, int kBits, int kTo> INLINE B32 field(B32 v) {
    const B32 kept =
        _mm256_and_si256(_mm256_srli_epi16(v, kShift), _mm256_set1_epi8((1 << kBits) - 1));
    return _mm256_slli_epi16(kept, kTo);
}
template <int kShift, int kBits> INLINE B32 upper_bits(B32 v) { return field<kShift, kBits, 4>(v); }

// 8 bytes of four 2-bit codes each. A byte times 1 + 2^6 + 2^12 + 2^18 has each at its own byte.
INLINE B32 spread_pairs(const uint8_t *p) {
    const B32 one = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)));
    const B32 two = _mm256_or_si256(one, _mm256_slli_epi32(one, 6));
    const B32 four = _mm256_or_si256(two, _mm256_slli_epi32(two, 12));
    return _mm256_and_si256(four, _mm256_set1_epi8(3));
}

// Eights 0, 2, 1, 3.
INLINE B32 middle_swapped(B32 v) { return _mm256_permute4x64_epi64(v, 0xd8); }

INLINE B32 bit_or(B32 a, B32 b) { return _mm256_or_si256(a, b); }

INLINE B32 shuffle(B32 index, const int8_t *table16) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i *>(table16));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index);
}

// Eight integers of a byte each. __builtin_convertvector converts them one by one.
INLINE F8 unsigned_bytes(uint64_t bytes) {
    return (F8)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(bytes))));
}
INLINE F8 signed_bytes(uint64_t bytes) {
    return (F8)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(int64_t(bytes))));
}

// Eight binary16 scales, `stride` bytes apart, converted together.
INLINE F8 scales8(const uint8_t *p, int stride) {
    uint16_t half[8];
    for (int i = 0; i < 8; ++i) std::memcpy(&half[i], p + i * stride, 2);
    const __m128i packed =
        _mm_set_epi16(short(half[7]), short(half[6]), short(half[5]), short(half[4]),
                      short(half[3]), short(half[2]), short(half[1]), short(half[0]));
    return (F8)_mm256_cvtph_ps(packed);
}

INLINE float half_to_float(const uint8_t *p) {
    uint16_t half;
    std::memcpy(&half, p, 2);
    return _cvtsh_ss(half);
}

}  // namespace
