// AArch64. With the dot product extension (Cortex-A76, as in the Raspberry Pi 5, and later)
// neon_dot.hpp has the products, without it neon_long.hpp.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#define SPRAT_NEON  // not __ARM_NEON, which the compiler also sets for plain C++

namespace {
constexpr int kLanes = 4;
}
#include "runtime/native/isa/vectors.hpp"
//
#include "runtime/native/isa/eight_in_halves.hpp"

namespace {

// Micro-kernel of GEMM, 4 tokens x 8 rows: 8 int32 sums of a block, 8 float sums and 3 operands of
// 32 registers (with i8mm twice as many sums, of two tokens each). sdot has a latency of 3 to 4
// cycles and two ports on a Cortex-A76: 8 sums keep both busy.
constexpr int kNRVectors = 2, kMR = 4;
// Streams of reads per thread (gemm/gemv.hpp). No constant of this file was timed on a board yet.
constexpr int kGemvRows = 2;
constexpr int kGemvTokens = 2;  // of a pass over the rows
constexpr int kMinPreparedTokens = 1;
constexpr bool kFiveAreThreeAndTwo = false;
constexpr int kTokenBlock = 96;  // see gemm/gemm.hpp
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
// Bits 4 and up of codes, kBits of each byte; the others are anything. bit_or() puts them in with
// one instruction.
template <int kBits> struct Upper {
    B32 bytes;
};
INLINE Upper<1> fifth_bits(uint32_t bits) {
    const uint8x16_t word = vreinterpretq_u8_u32(vdupq_n_u32(bits));
    const uint8x16_t low = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
                     high = {2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3},
                     bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    return {{vtstq_u8(vqtbl1q_u8(word, low), bit), vtstq_u8(vqtbl1q_u8(word, high), bit)}};
}
template <int kBy> INLINE uint8x16_t shift_left(uint8x16_t v) {
    if constexpr (kBy > 0) return vshlq_n_u8(v, kBy);
    else if constexpr (kBy < 0) return vshrq_n_u8(v, -kBy);
    else return v;
}
template <int kShift, int kBits, int kTo> INLINE B32 field(B32 v) {
    const uint8x16_t mask = vdupq_n_u8(((1 << kBits) - 1) << kTo);
    return {vandq_u8(shift_left<kTo - kShift>(v.low), mask),
            vandq_u8(shift_left<kTo - kShift>(v.high), mask)};
}
template <int kShift, int kBits> INLINE Upper<kBits> upper_bits(B32 v) {
    return {{shift_left<4 - kShift>(v.low), shift_left<4 - kShift>(v.high)}};
}

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
template <int kBits> INLINE B32 bit_or(B32 a, Upper<kBits> b) {
    const uint8x16_t mask = vdupq_n_u8(((1 << kBits) - 1) << 4);
    return {vbslq_u8(mask, b.bytes.low, a.low), vbslq_u8(mask, b.bytes.high, a.high)};
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
// Halves `stride` bytes apart. Put together in general registers, whose units have nothing else to
// do; a load of one lane waits for the one before it, and takes a vector unit, too.
INLINE uint64_t four_halves(const uint8_t *p, int stride) {
    const auto at = [&](int i) { return uint64_t(load<uint16_t>(p + i * stride)) << 16 * i; };
    return at(0) | at(1) | (at(2) | at(3));
}
INLINE F8 scales8(const uint8_t *p, int stride) {
    const uint64_t low = four_halves(p, stride), high = four_halves(p + 4 * stride, stride);
    return {(F)vcvt_f32_f16(vcreate_f16(low)), (F)vcvt_f32_f16(vcreate_f16(high))};
}

// Eight integers of a byte each.
INLINE F8 unsigned_bytes(uint64_t bytes) {
    const uint16x8_t wide = vmovl_u8(vcreate_u8(bytes));
    return {(F)vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))),
            (F)vcvtq_f32_u32(vmovl_high_u16(wide))};
}
INLINE F8 signed_bytes(uint64_t bytes) {
    const int16x8_t wide = vmovl_s8(vcreate_s8(bytes));
    return {(F)vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))),
            (F)vcvtq_f32_s32(vmovl_high_s16(wide))};
}

// Loads what an instruction overwrites. The compiler would load it once and copy it, which takes a
// vector unit; loads have units of their own.
template <class V> INLINE V load_again(const void *p) {
    V v;
    asm volatile("ldr %q0, %1" : "=w"(v) : "m"(*static_cast<const V *>(p)));
    return v;
}
// The same of memory that is complete since all_written(), in a loop that keeps sums in arrays: GCC
// stores them at every step beside assembler that is volatile or has an operand in memory. `i` and
// `j` tell one load from another, which would be the same otherwise.
template <class V> INLINE V load_unchanged(const void *p, int i, int j) {
    V v;
    asm("ldr %q0, [%1]" : "=w"(v) : "r"(p), "X"(i), "X"(j));
    return v;
}
INLINE void all_written() { asm volatile("" ::: "memory"); }

INLINE I pairs_added(I a, I b) { return (I)vpaddq_s32((int32x4_t)a, (int32x4_t)b); }

INLINE float reduce_max(F v) { return vmaxvq_f32((float32x4_t)v); }
INLINE float reduce_add(F v) { return vaddvq_f32((float32x4_t)v); }

INLINE int32_t reduce_max(I v) { return vmaxvq_s32((int32x4_t)v); }

constexpr bool kCenteredPanels = true;  // see gemm/panel.hpp

template <class D> INLINE Chunk chunk(const uint8_t *group, int c) { return D::codes(group, c); }

// Dot products of a panel start at the bits of kRoundMagic, so that a sum x is, read as a float,
// kRoundMagic + x: the difference is exact (|x| < 2^22) and takes one vector unit for a cycle,
// where a Cortex-A76 takes two to convert.
constexpr int32_t kDotStart = kRoundMagicBits;
INLINE F scaled(I dot, F scale) { return ((F)dot - kRoundMagic) * scale; }

// isa/store_codes.hpp says what this does. GCC narrows such vectors one element at a time. The low
// bytes of rounded floats are the codes already.
INLINE void store_codes(const F *shifted, bool usable, int8_t *to, int32_t *sums) {
    const uint8x16_t kept = vdupq_n_u8(uint8_t(-int(usable)));
    for (int i = 0; i < 2; ++i, shifted += 4) {
        const auto pair = [&](int at) {
            return vreinterpretq_u8_u16(
                vuzp1q_u16((uint16x8_t)shifted[at], (uint16x8_t)shifted[at + 1]));
        };
        const uint8x16_t bytes = vandq_u8(vuzp1q_u8(pair(0), pair(2)), kept);
        vst1q_u8(reinterpret_cast<uint8_t *>(to + 16 * i), bytes);
        sums[i] = vaddlvq_s16(vpaddlq_s8(vreinterpretq_s8_u8(bytes)));
    }
}

// total + both products of a pair of int16: four instructions for eight products, which float32
// does in two, so that attention takes float32 here.
constexpr bool kPairProducts = false;
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

}  // namespace

#if defined(__ARM_FEATURE_DOTPROD)
#include "runtime/native/isa/arm/neon_dot.hpp"
#else
#include "runtime/native/isa/arm/neon_long.hpp"
#endif
