// AVX-512 with VNNI and VBMI (Ice Lake, Zen 4 and later): two blocks to a register, permuted into
// place by one vpermb.
#pragma once

#include <cstdint>

namespace {
constexpr int kLanes = 16;
}
#include "runtime/native/isa/vectors.hpp"
//
#include "runtime/native/isa/eight_in_a_vector.hpp"
#include "runtime/native/isa/x86/bytes256.hpp"

namespace {

// Micro-kernel of GEMM, 6 tokens x 32 rows. vpdpbusd has a latency of 5 cycles and two ports, so
// that at least 10 sums must be independent: 6 x 2 int32 sums of a block are 12. With 12 float sums
// of the tile, 2 registers of weights and one of activations they fill 27 of 32 registers.
constexpr int kNRVectors = 2, kMR = 6;
// Streams of reads per thread (gemm/gemv.hpp).
constexpr int kGemvRows = 4;
// Tokens of a pass over the rows: their sums of four rows fill 16 of 32 registers.
constexpr int kGemvTokens = 4;
constexpr int kMinPreparedTokens = 2;
constexpr bool kFiveAreThreeAndTwo = true;  // one alone shares nothing
constexpr int kTokenBlock = 1 << 20;        // see gemm/gemm.hpp
// Tokens from which GEMM is faster: with fewer, unpacking a panel costs more than it saves.
constexpr int kMinGemmTokens = 6;
// Micro-kernel of attention, 6 x 64: 24 sums, 4 registers of B, one broadcast of A, 29 of 32
// registers. Each step of k loads 4 registers and broadcasts 6 words for 24 multiply-adds: 10 loads
// on two ports pass in 5 cycles, 24 multiply-adds in 12. For the last columns 16 x 16, whose 16
// sums hide the latency.
constexpr int kAttnMR = 6, kAttnNRVectors = 4, kAttnTallMR = 16;

typedef __m512i Chunk;  // the codes of two blocks
constexpr int kChunkBlocks = 2;
// vpdpbusd wants unsigned codes: 128 is added to signed ones, and the sums of the activations take
// it out again.
constexpr int kSignedBias = 128;

INLINE float reduce_max(F v) { return _mm512_reduce_max_ps((__m512)v); }
INLINE float reduce_add(F v) { return _mm512_reduce_add_ps((__m512)v); }

// The sums of four registers together: 13 instructions, where one by one they take 32.
INLINE void reduce_add_rows(const F (&v)[4], float *to) {
    const auto fold = [](__m512 a, __m512 b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    const __m512 all =
        fold(fold((__m512)v[0], (__m512)v[1]), fold((__m512)v[2], (__m512)v[3]));  // a quarter each
    const __m512 pairs = _mm512_add_ps(all, _mm512_permute_ps(all, 0xb1));
    const __m512 quarters = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0x4e));
    _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, quarters)));
}

INLINE int32_t reduce_max(I v) { return _mm512_reduce_max_epi32((__m512i)v); }

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

// The nibbles of two blocks whose 16 bytes begin at kFirst and at kFirst + kStride, as four
// quarters:
//   | low nibbles of the first | high nibbles | low nibbles of the second | high nibbles |
template <int kFirst, int kStride> INLINE Chunk nibbles2(const uint8_t *p) {
    alignas(64) static constexpr auto order = [] {
        struct {
            uint8_t at[64];
        } o{};
        for (int i = 0; i < 64; ++i) o.at[i] = uint8_t(kFirst + i / 32 * kStride + i % 16);
        return o;
    }();
    const __m512i shift = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    const __m512i window = _mm512_maskz_loadu_epi8((1ull << (kFirst + kStride + 16)) - 1, p);
    const __m512i both = _mm512_permutexvar_epi8(_mm512_load_si512(&order), window);
    return _mm512_and_si512(_mm512_srlv_epi64(both, shift), _mm512_set1_epi8(15));
}

// pairs512.hpp specialises it for formats that have a shorter way than joining two blocks.
template <class D> struct Pair {};

template <class D> INLINE Chunk chunk(const uint8_t *group, int c) {
    if constexpr (requires { Pair<D>::codes(group, c); }) return Pair<D>::codes(group, c);
    else return join(D::codes(group, 2 * c), D::codes(group, 2 * c + 1));
}

template <bool kSigned> INLINE Chunk as_unsigned(Chunk codes) {
    return kSigned ? _mm512_xor_si512(codes, _mm512_set1_epi8(int8_t(128))) : codes;
}

// total + scale * (codes . x) of chunk c, with one scale per 32 codes or one per 16; `scale` holds
// those of the group.
template <bool kSigned, bool kHalves>
INLINE F add_dot(F total, Chunk codes, const int8_t *x, const F8 *scale, int c) {
    const I dot = (I)_mm512_dpbusd_epi32(_mm512_setzero_si512(), as_unsigned<kSigned>(codes),
                                         _mm512_loadu_si512(x));
    const __m512i first = kHalves
                              ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                              : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i order = _mm512_add_epi32(first, _mm512_set1_epi32(kHalves ? c % 2 * 4 : c * 2));
    const __m512 scales = _mm512_castps256_ps512((__m256)scale[kHalves ? c / 2 : 0]);
    return total + to_float(dot) * (F)_mm512_permutexvar_ps(order, scales);
}

INLINE I broadcast4(const int8_t *x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return I{} + four;
}
template <bool kSigned> INLINE I panel_dot(I total, const uint8_t *codes, I x, int) {
    return (I)_mm512_dpbusd_epi32((__m512i)total, _mm512_loadu_si512(codes), (__m512i)x);
}

// A panel's dot products x start at the bits of the round magic, so that their bits are those of
// the float kRoundMagic + x: one multiply-add takes the constant off and scales, in place of a
// conversion and a product. Exact but for its rounding: |x| < 2^22, and a scale has at most 20
// bits.
constexpr int32_t kDotStart = kRoundMagicBits;
INLINE F scaled(I dot, F scale) {
    return (F)_mm512_fmadd_ps((__m512)dot, (__m512)scale, (__m512)(scale * -kRoundMagic));
}

// total + both products of a pair of int16, for attention.
constexpr bool kPairProducts = true;
INLINE I dot2_i16(I total, I a, I b) {
    return (I)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
}

// 32-bit words 0 to 3 of kLanes rows: out[j] holds word j of each row. Rows 4 l + a, of l = 0 .. 3,
// fill the quarters of a register, and each quarter is transposed by itself.
INLINE void transpose4x4(const uint8_t *in, int64_t stride, I *out) {
    __m512i x[4];
    for (int a = 0; a < 4; ++a) {
        const auto row = [&](int l) {
            return _mm_loadu_si128(reinterpret_cast<const __m128i *>(in + (4 * l + a) * stride));
        };
        x[a] = _mm512_castsi128_si512(row(0));
        x[a] = _mm512_mask_broadcast_i32x4(x[a], 0x00f0, row(1));
        x[a] = _mm512_mask_broadcast_i32x4(x[a], 0x0f00, row(2));
        x[a] = _mm512_mask_broadcast_i32x4(x[a], 0xf000, row(3));
    }
    const __m512i first = _mm512_unpacklo_epi32(x[0], x[1]),
                  second = _mm512_unpacklo_epi32(x[2], x[3]);
    const __m512i third = _mm512_unpackhi_epi32(x[0], x[1]),
                  fourth = _mm512_unpackhi_epi32(x[2], x[3]);
    out[0] = (I)_mm512_unpacklo_epi64(first, second),
    out[1] = (I)_mm512_unpackhi_epi64(first, second);
    out[2] = (I)_mm512_unpacklo_epi64(third, fourth),
    out[3] = (I)_mm512_unpackhi_epi64(third, fourth);
}

// Dot products of four unsigned and four signed bytes in each lane, for latent attention.
struct ByteDot {
    static constexpr int kZero = 128,
                         kLargest = 255;  // of the unsigned bytes: what stands for 0, the largest

    static INLINE I dot(I total, I codes, I x) {
        return (I)_mm512_dpbusd_epi32((__m512i)total, (__m512i)codes, (__m512i)x);
    }

    // A byte of each of four rows to a lane, of 64 columns, in the order that unpacking leaves:
    // register j has columns 4 j .. 4 j + 3 of each 16.
    static INLINE void transpose_bytes(const uint8_t *const (&rows)[4], I *out) {
        const __m512i a = _mm512_loadu_si512(rows[0]), b = _mm512_loadu_si512(rows[1]);
        const __m512i c = _mm512_loadu_si512(rows[2]), d = _mm512_loadu_si512(rows[3]);
        const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
        const __m512i ab_high = _mm512_unpackhi_epi8(a, b), cd_high = _mm512_unpackhi_epi8(c, d);
        out[0] = (I)_mm512_unpacklo_epi16(ab, cd), out[1] = (I)_mm512_unpackhi_epi16(ab, cd);
        out[2] = (I)_mm512_unpacklo_epi16(ab_high, cd_high),
        out[3] = (I)_mm512_unpackhi_epi16(ab_high, cd_high);
    }
};

}  // namespace

#include "runtime/native/isa/one_token_per_vector.hpp"
#include "runtime/native/isa/one_step_per_load.hpp"
#include "runtime/native/isa/quad_sums.hpp"
#include "runtime/native/isa/store_codes.hpp"
