// AVX2, FMA and F16C; with -mavxvnni, its 256-bit dot product.
#pragma once

#include <cstdint>

namespace {
constexpr int kLanes = 8;
}
#include "runtime/native/isa/vectors.hpp"
//
#include "runtime/native/isa/eight_in_a_vector.hpp"
#include "runtime/native/isa/x86/bytes256.hpp"

namespace {

// Micro-kernel of GEMM, 4 tokens x 16 rows: 8 sums of a block, 2 registers of weights, one of
// activations, and room for what the dot product needs without VNNI (sign, abs, ones); the float
// sums wait in L1. Each step loads 2 registers and broadcasts 4 words for 8 products, where 4 x 8
// took 5 loads for 4, which two loads per cycle made the limit.
constexpr int kNRVectors = 2, kMR = 4;
// Streams of reads per thread (gemm/gemv.hpp).
constexpr int kGemvRows = 4;
constexpr int kGemvTokens = 4;         // of a pass over the rows
constexpr int kMinPreparedTokens = 1;  // arithmetic is the limit, where AVX-512 waits for memory
constexpr bool kFiveAreThreeAndTwo = false;
constexpr int kTokenBlock = 96;  // see gemm/gemm.hpp
// Tokens from which GEMM is faster: with fewer, unpacking a panel costs more than it saves.
constexpr int kMinGemmTokens = 6;
// Micro-kernel of attention, 6 x 16: 12 sums, 2 registers of B, one broadcast of A; 12 x 8 for its
// last columns.
constexpr int kAttnMR = 6, kAttnNRVectors = 2, kAttnTallMR = 12;

typedef B32 Chunk;  // the codes of one block
constexpr int kChunkBlocks = 1;

INLINE float reduce_max(F v) {
    __m128 half =
        _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
INLINE float reduce_add(F v) {
    __m128 half =
        _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

INLINE int32_t reduce_max(I v) {
    __m128i half =
        _mm_max_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
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
// vpdpbusd wants unsigned codes: 128 is added to signed ones, and the sums of the activations take
// it out again.
constexpr int kSignedBias = 128;

template <bool kSigned> INLINE B32 as_unsigned(B32 codes) {
    return kSigned ? _mm256_xor_si256(codes, _mm256_set1_epi8(int8_t(128))) : codes;
}
// Inline assembly: GCC 12 does not finish compiling _mm256_dpbusd_avx_epi32 here.
template <bool kSigned> INLINE I dot4(I total, B32 codes, B32 x) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(total) : "x"(codes), "xm"(x));
    return total;
}
#else
constexpr int kSignedBias = 0;

template <bool kSigned> INLINE B32 as_unsigned(B32 codes) { return codes; }

// vpmaddubsw adds pairs in 16 bits and saturates at 32767: |code| <= 128 times |x| <= 127, twice,
// is 32512.
template <bool kSigned> INLINE I dot4(I total, B32 codes, B32 x) {
    if constexpr (kSigned) {
        x = _mm256_sign_epi8(x, codes);
        codes = _mm256_abs_epi8(codes);
    }
    const __m256i pairs = _mm256_maddubs_epi16(codes, x);
    return total + (I)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

// A panel's dot products x start at the bits of the round magic, so that their bits are those of
// the float kRoundMagic + x: one multiply-add takes the constant off and scales, in place of a
// conversion and a product. Exact but for its rounding: |x| < 2^22, and a scale has at most 20
// bits.
constexpr int32_t kDotStart = kRoundMagicBits;
INLINE F scaled(I dot, F scale) {
    return (F)_mm256_fmadd_ps((__m256)dot, (__m256)scale, (__m256)(scale * -kRoundMagic));
}

// total + both products of a pair of int16, for attention.
constexpr bool kPairProducts = true;
INLINE I dot2_i16(I total, I a, I b) {
#if defined(__AVXVNNI__)
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(total) : "x"(a), "xm"(b));
    return total;
#else
    return total + (I)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#endif
}

template <class D> INLINE Chunk chunk(const uint8_t *group, int c) { return D::codes(group, c); }

// total + scale * (codes . x) of chunk c, with one scale per 32 codes or one per 16; `scale` holds
// those of the group.
template <bool kSigned, bool kHalves>
INLINE F add_dot(F total, Chunk codes, const int8_t *x, const F8 *scale, int c) {
    const I dot = dot4<kSigned>(I{}, as_unsigned<kSigned>(codes),
                                load32(reinterpret_cast<const uint8_t *>(x)));
    const __m256i first =
        kHalves ? _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1) : _mm256_setzero_si256();
    const __m256i order = _mm256_add_epi32(first, _mm256_set1_epi32(kHalves ? c % 4 * 2 : c));
    return total +
           to_float(dot) * (F)_mm256_permutevar8x32_ps((__m256)scale[kHalves ? c / 4 : 0], order);
}

INLINE I broadcast4(const int8_t *x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return I{} + four;
}
template <bool kSigned> INLINE I panel_dot(I total, const uint8_t *codes, I x, int) {
    return dot4<kSigned>(total, load32(codes), (B32)x);
}

// 32-bit words 0 to 3 of kLanes rows: out[j] holds word j of each row. Rows a and 4 + a fill the
// halves of a register, and each half is transposed by itself.
INLINE void transpose4x4(const uint8_t *in, int64_t stride, I *out) {
    __m256i x[4];
    for (int a = 0; a < 4; ++a) {
        const auto row = [&](int l) {
            return _mm_loadu_si128(reinterpret_cast<const __m128i *>(in + (4 * l + a) * stride));
        };
        x[a] = _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(1), 1);
    }
    const __m256i first = _mm256_unpacklo_epi32(x[0], x[1]),
                  second = _mm256_unpacklo_epi32(x[2], x[3]);
    const __m256i third = _mm256_unpackhi_epi32(x[0], x[1]),
                  fourth = _mm256_unpackhi_epi32(x[2], x[3]);
    out[0] = (I)_mm256_unpacklo_epi64(first, second),
    out[1] = (I)_mm256_unpackhi_epi64(first, second);
    out[2] = (I)_mm256_unpacklo_epi64(third, fourth),
    out[3] = (I)_mm256_unpackhi_epi64(third, fourth);
}

#if defined(__AVXVNNI__)
// Dot products of four unsigned and four signed bytes in each lane, for latent attention.
struct ByteDot {
    static constexpr int kZero = 128,
                         kLargest = 255;  // of the unsigned bytes: what stands for 0, the largest

    static INLINE I dot(I total, I codes, I x) { return dot4<false>(total, (B32)codes, (B32)x); }

    // A byte of each of four rows to a lane, of 32 columns, in the order that unpacking leaves:
    // register j has columns 4 j .. 4 j + 3 of each 16.
    static INLINE void transpose_bytes(const uint8_t *const (&rows)[4], I *out) {
        const __m256i a = load32(rows[0]), b = load32(rows[1]), c = load32(rows[2]),
                      d = load32(rows[3]);
        const __m256i ab = _mm256_unpacklo_epi8(a, b), cd = _mm256_unpacklo_epi8(c, d);
        const __m256i ab_high = _mm256_unpackhi_epi8(a, b), cd_high = _mm256_unpackhi_epi8(c, d);
        out[0] = (I)_mm256_unpacklo_epi16(ab, cd), out[1] = (I)_mm256_unpackhi_epi16(ab, cd);
        out[2] = (I)_mm256_unpacklo_epi16(ab_high, cd_high),
        out[3] = (I)_mm256_unpackhi_epi16(ab_high, cd_high);
    }
};
#else
typedef void ByteDot;  // vpmaddubsw saturates for products of any two bytes
#endif

}  // namespace

#include "runtime/native/isa/one_token_per_vector.hpp"
#include "runtime/native/isa/one_step_per_load.hpp"
#include "runtime/native/isa/store_codes.hpp"
//
#if defined(__AVXVNNI__)
#include "runtime/native/isa/quad_sums.hpp"
#else
#include "runtime/native/isa/x86/pair_sums.hpp"
#endif
