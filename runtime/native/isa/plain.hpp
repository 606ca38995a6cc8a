// C++ alone: any processor, and what the others are tested against. The compiler may use its
// baseline vectors.
#pragma once

#include <cstdint>

namespace {
constexpr int kLanes = 4;
}
#include "runtime/native/isa/vectors.hpp"
//
#include "runtime/native/isa/eight_in_halves.hpp"

namespace {

// Small tiles: the compiler's baseline has 16 registers of 128 bits, and arithmetic is the limit
// anyway.
constexpr int kNRVectors = 2, kMR = 2;
constexpr int kGemvRows = 1;    // streams of reads per thread (gemm/gemv.hpp)
constexpr int kGemvTokens = 2;  // tokens of a pass over the rows
constexpr int kMinPreparedTokens = 2;
constexpr bool kFiveAreThreeAndTwo = false;
constexpr int kTokenBlock = 96;    // see gemm/gemm.hpp
constexpr int kMinGemmTokens = 6;  // fewer: unpacking a panel costs more than it saves
constexpr int kAttnMR = 4, kAttnNRVectors = 2, kAttnTallMR = 8;

struct B32 {
    uint8_t at[32];
};
typedef B32 Chunk;
constexpr int kChunkBlocks = 1;
constexpr int kSignedBias = 0;

template <class Function> INLINE B32 each(Function f) {
    B32 out;
    for (int i = 0; i < 32; ++i) out.at[i] = uint8_t(f(i));
    return out;
}
INLINE B32 load32(const uint8_t *p) { return load<B32>(p); }
INLINE void store32(uint8_t *p, const B32 &v) { store(p, v); }
INLINE B32 low4(const B32 &v) {
    return each([&](int i) { return v.at[i] & 15; });
}
INLINE B32 high4(const B32 &v) {
    return each([&](int i) { return v.at[i] >> 4; });
}
INLINE B32 nibbles(const uint8_t *p) {
    return each([&](int i) { return i < 16 ? p[i] & 15 : p[i - 16] >> 4; });
}
INLINE B32 fifth_bits(uint32_t bits) {
    return each([&](int i) { return (bits >> i & 1) << 4; });
}
template <int kShift, int kBits, int kTo> INLINE B32 field(const B32 &v) {
    return each([&](int i) { return (v.at[i] >> kShift & ((1 << kBits) - 1)) << kTo; });
}
template <int kShift, int kBits> INLINE B32 upper_bits(const B32 &v) {
    return field<kShift, kBits, 4>(v);
}
// 8 bytes of four 2-bit codes each.
INLINE B32 spread_pairs(const uint8_t *p) {
    return each([&](int i) { return p[i / 4] >> i % 4 * 2 & 3; });
}
// Eights 0, 2, 1, 3.
INLINE B32 middle_swapped(const B32 &v) {
    return each([&](int i) { return v.at[i / 8 % 3 == 0 ? i : i ^ 24]; });
}
INLINE B32 bit_or(const B32 &a, const B32 &b) {
    return each([&](int i) { return a.at[i] | b.at[i]; });
}
INLINE B32 shuffle(const B32 &index, const int8_t *table16) {
    return each([&](int i) { return table16[index.at[i]]; });
}
template <bool kSigned> INLINE Chunk as_unsigned(const Chunk &codes) { return codes; }

// binary16 by arithmetic: shift the fields into place, then 2^112 corrects the exponent, subnormals
// included.
INLINE float half_bits_to_float(uint16_t half) {
    const uint32_t magnitude = uint32_t(half & 0x7fff) << 13;
    float value;
    if (magnitude >= 0x0f800000) {  // infinity and NaN keep all exponent bits
        const uint32_t bits = magnitude | 0x7f800000;
        std::memcpy(&value, &bits, 4);
    } else {
        std::memcpy(&value, &magnitude, 4);
        value *= 0x1p112f;
    }
    return half & 0x8000 ? -value : value;
}
INLINE float half_to_float(const uint8_t *p) { return half_bits_to_float(load<uint16_t>(p)); }
INLINE F8 scales8(const uint8_t *p, int stride) {
    float out[8];
    for (int i = 0; i < 8; ++i) out[i] = half_to_float(p + i * stride);
    return load8(out);
}

INLINE F8 unsigned_bytes(uint64_t bytes) {
    const I8 wide = __builtin_convertvector(load<U8x8>(&bytes), I8);
    return integers8(reinterpret_cast<const int32_t *>(&wide));
}
INLINE F8 signed_bytes(uint64_t bytes) {
    const I8 wide = __builtin_convertvector(load<S8x8>(&bytes), I8);
    return integers8(reinterpret_cast<const int32_t *>(&wide));
}

INLINE float reduce_max(F v) { return max(max(v[0], v[1]), max(v[2], v[3])); }
INLINE float reduce_add(F v) { return (v[0] + v[1]) + (v[2] + v[3]); }
INLINE int32_t reduce_max(I v) {
    const int32_t a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
}
INLINE F load_int8(const uint8_t *p) {
    return F{float(int8_t(p[0])), float(int8_t(p[1])), float(int8_t(p[2])), float(int8_t(p[3]))};
}
INLINE F load_half(const uint16_t *p) {
    return F{half_bits_to_float(p[0]), half_bits_to_float(p[1]), half_bits_to_float(p[2]),
             half_bits_to_float(p[3])};
}
INLINE F load_bf16(const uint16_t *p) { return (F)(I{p[0], p[1], p[2], p[3]} << 16); }

template <class D> INLINE Chunk chunk(const uint8_t *group, int c) { return D::codes(group, c); }

template <bool kSigned> INLINE int32_t dot(const uint8_t *codes, const int8_t *x, int n) {
    int32_t total = 0;
    for (int i = 0; i < n; ++i)
        total += (kSigned ? int32_t(int8_t(codes[i])) : int32_t(codes[i])) * x[i];
    return total;
}

// total + scale * (codes . x) of chunk c, with one scale per 32 codes or one per 16; `scale` holds
// those of the group.
template <bool kSigned, bool kHalves>
INLINE F add_dot(F total, const Chunk &codes, const int8_t *x, const F8 *scale, int c) {
    const float first = float(dot<kSigned>(codes.at, x, 16)),
                second = float(dot<kSigned>(codes.at + 16, x + 16, 16));
    total[0] += kHalves ? scale[c / 4][c % 4 * 2] * first : scale[0][c] * first;
    total[1] += kHalves ? scale[c / 4][c % 4 * 2 + 1] * second : scale[0][c] * second;
    return total;
}

INLINE const int8_t *broadcast4(const int8_t *x) { return x; }
template <bool kSigned> INLINE I panel_dot(I total, const uint8_t *codes, const int8_t *x, int) {
    for (int lane = 0; lane < kLanes; ++lane) total[lane] += dot<kSigned>(codes + 4 * lane, x, 4);
    return total;
}

constexpr int32_t kDotStart = 0;  // where dot products of a panel start; scaled() takes it off
INLINE F scaled(I dot, F scale) { return to_float(dot) * scale; }

// total + both products of a pair of int16, for attention.
constexpr bool kPairProducts = true;
INLINE I dot2_i16(I total, I a, I b) {
    return total + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
}

// 32-bit words 0 to 3 of kLanes rows: out[j] holds word j of each row.
INLINE void transpose4x4(const uint8_t *in, int64_t stride, I *out) {
    for (int j = 0; j < 4; ++j)
        for (int i = 0; i < kLanes; ++i) out[j][i] = load<int32_t>(in + i * stride + 4 * j);
}

typedef void ByteDot;  // no product of bytes: attention takes int16 pairs

}  // namespace

#include "runtime/native/isa/one_token_per_vector.hpp"
#include "runtime/native/isa/one_step_per_load.hpp"
#include "runtime/native/isa/quad_sums.hpp"
#include "runtime/native/isa/store_codes.hpp"
