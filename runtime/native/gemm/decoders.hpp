// One decoder per block format, over the primitives of whichever instruction set this is compiled
// for.
//
// A group is 256 weights of one row: eight blocks of 32, or one super-block of a K-quant. A decoder
// says how many bytes a group takes and gives, of a group g,
//
//   scale(g, s)  eight scales, one per 32 codes; with kHalves sixteen, one per 16
//   min(g, m)    as many minima, for formats that have them: weight = scale * code + min
//   codes(g, b)  the 32 codes of block b, a byte each
//
// and kZero, the code that stands for 0: weight = scale * (code - kZero); kLargest, the largest
// magnitude of a code. Layouts are ggml's (ggml-common.h). Blocks of 32 with a scale look like
// this, with d in binary16 and codes j and j + 16 in the low and the high nibble of byte j:
//
//   Q4_0    | d | qs[16] |            Q4_1    | d | m | qs[16] |
//   Q5_0    | d | qh[4] | qs[16] |    Q5_1    | d | m | qh[4] | qs[16] |     qh: bit 4 of each code
//   Q8_0    | d | qs[32] |            IQ4_NL  | d | qs[16] |                 qs: indices of a table
//
// Where codes are nibbles and nothing else, a panel is unpacked by transposing them first
// (panel.hpp). It needs to know where they lie: packed(i) is the i-th 16 bytes of them, and
// the low nibbles of kPackedBlocks times 16 bytes come before the high ones.
#pragma once

namespace {

struct BlockOf32 {  // the defaults: 32 codes of four bits and one scale
    static constexpr int kZero = 0, kLargest = 15;
    static constexpr bool kSigned = false, kHasMin = false, kHalves = false;
};

struct DecodeQ4_0 : BlockOf32 {  // d, qs[16]
    static constexpr int block_bytes = 18, group_bytes = 8 * block_bytes, kZero = 8;
#if defined(__AVX512VBMI__)
    // Scales lie 9 words of 16 bits apart: the two loads hold words 0 to 63 of the group, and so
    // all eight.
    static INLINE void scale(const uint8_t *g, F8 *s) {
        const __m512i order = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
        const __m512i words =
            _mm512_permutex2var_epi16(_mm512_loadu_si512(g), order, _mm512_loadu_si512(g + 64));
        s[0] = (F8)_mm256_cvtph_ps(_mm512_castsi512_si128(words));
    }
#else
    static INLINE void scale(const uint8_t *g, F8 *s) { s[0] = scales8(g, block_bytes); }
#endif
    static constexpr int kPackedBlocks = 1;
    static constexpr int packed(int i) { return i * block_bytes + 2; }
    static INLINE B32 codes(const uint8_t *g, int b) { return nibbles(g + b * block_bytes + 2); }
};

struct DecodeQ4_1 : BlockOf32 {  // d, m, qs[16]
    static constexpr int block_bytes = 20, group_bytes = 8 * block_bytes;
    static constexpr bool kHasMin = true;
    static INLINE void scale(const uint8_t *g, F8 *s) { s[0] = scales8(g, block_bytes); }
    static INLINE void min(const uint8_t *g, F8 *m) { m[0] = scales8(g + 2, block_bytes); }
    static constexpr int kPackedBlocks = 1;
    static constexpr int packed(int i) { return i * block_bytes + 4; }
    static INLINE B32 codes(const uint8_t *g, int b) { return nibbles(g + b * block_bytes + 4); }
};

struct DecodeQ5_0 : BlockOf32 {  // d, qh[4], qs[16]
    static constexpr int block_bytes = 22, group_bytes = 8 * block_bytes, kZero = 16;
    static constexpr int kLargest = 31;
    static INLINE void scale(const uint8_t *g, F8 *s) { s[0] = scales8(g, block_bytes); }
    static INLINE B32 codes(const uint8_t *g, int b) {
        const uint8_t *block = g + b * block_bytes;
        return bit_or(nibbles(block + 6), fifth_bits(load<uint32_t>(block + 2)));
    }
};

struct DecodeQ5_1 : BlockOf32 {  // d, m, qh[4], qs[16]
    static constexpr int block_bytes = 24, group_bytes = 8 * block_bytes, kLargest = 31;
    static constexpr bool kHasMin = true;
    static INLINE void scale(const uint8_t *g, F8 *s) { s[0] = scales8(g, block_bytes); }
    static INLINE void min(const uint8_t *g, F8 *m) { m[0] = scales8(g + 2, block_bytes); }
    static INLINE B32 codes(const uint8_t *g, int b) {
        const uint8_t *block = g + b * block_bytes;
        return bit_or(nibbles(block + 8), fifth_bits(load<uint32_t>(block + 4)));
    }
};

struct DecodeQ8_0 : BlockOf32 {  // d, qs[32]
    static constexpr int block_bytes = 34, group_bytes = 8 * block_bytes, kLargest = 128;
    static constexpr bool kSigned = true;
    static INLINE void scale(const uint8_t *g, F8 *s) { s[0] = scales8(g, block_bytes); }
    static INLINE B32 codes(const uint8_t *g, int b) { return load32(g + b * block_bytes + 2); }
};

struct DecodeIQ4_NL : BlockOf32 {  // d, qs[16], codes of a table
    static constexpr int block_bytes = 18, group_bytes = 8 * block_bytes, kLargest = 127;
    static constexpr bool kSigned = true;
    static constexpr int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
    static INLINE void scale(const uint8_t *g, F8 *s) { s[0] = scales8(g, block_bytes); }
    static INLINE B32 codes(const uint8_t *g, int b) {
        return shuffle(nibbles(g + b * block_bytes + 2), values);
    }
};

// Q4_K and Q5_K begin with d, dmin and eight scales and minima of 6 bits in three 32-bit words w, a
// byte j of each word for blocks j and 4 + j:
//
//   w0: scale[j] in bits 0-5, bits 4-5 of scale[4 + j] in bits 6-7
//   w1: min[j] in bits 0-5, bits 4-5 of min[4 + j] in bits 6-7
//   w2: bits 0-3 of scale[4 + j] in the low nibble, of min[4 + j] in the high one
struct KQuant : BlockOf32 {
    static constexpr bool kHasMin = true;
    static INLINE uint32_t word(const uint8_t *g, int i) { return load<uint32_t>(g + 4 + 4 * i); }
    static INLINE uint64_t scale_bytes(const uint8_t *g) {
        const uint32_t upper = (word(g, 2) & 0x0f0f0f0f) | (word(g, 0) >> 6 & 0x03030303) << 4;
        return uint64_t(upper) << 32 | (word(g, 0) & 0x3f3f3f3f);
    }
    static INLINE uint64_t min_bytes(const uint8_t *g) {
        const uint32_t upper = (word(g, 2) >> 4 & 0x0f0f0f0f) | (word(g, 1) >> 6 & 0x03030303) << 4;
        return uint64_t(upper) << 32 | (word(g, 1) & 0x3f3f3f3f);
    }
    static INLINE void scale(const uint8_t *g, F8 *s) {
        s[0] = unsigned_bytes(scale_bytes(g)) * half_to_float(g);
    }
    static INLINE void min(const uint8_t *g, F8 *m) {
        m[0] = unsigned_bytes(min_bytes(g)) * -half_to_float(g + 2);
    }
};

struct DecodeQ4_K : KQuant {  // header, qs[4][32]: low nibbles are block 2i, high ones block 2i + 1
    static constexpr int group_bytes = 144, kPackedBlocks = 2;
    static constexpr int packed(int i) { return 16 + 16 * i; }
    static INLINE B32 codes(const uint8_t *g, int b) {
        const B32 both = load32(g + 16 + b / 2 * 32);
        return b % 2 ? high4(both) : low4(both);
    }
};

struct DecodeQ5_K : KQuant {  // header, qh[32], qs[4][32]
    static constexpr int group_bytes = 176, kLargest = 31;
    static INLINE auto upper(B32 qh, int b) {
        switch (b) {
            case 0:
                return upper_bits<0, 1>(qh);
            case 1:
                return upper_bits<1, 1>(qh);
            case 2:
                return upper_bits<2, 1>(qh);
            case 3:
                return upper_bits<3, 1>(qh);
            case 4:
                return upper_bits<4, 1>(qh);
            case 5:
                return upper_bits<5, 1>(qh);
            case 6:
                return upper_bits<6, 1>(qh);
            default:
                return upper_bits<7, 1>(qh);
        }
    }
    static INLINE B32 codes(const uint8_t *g, int b) {
        const B32 both = load32(g + 48 + b / 2 * 32);
        return bit_or(b % 2 ? high4(both) : low4(both), upper(load32(g + 16), b));
    }
};

struct DecodeQ6_K : BlockOf32 {  // ql[2][64], qh[2][32], scales[16] of int8, d
    static constexpr int group_bytes = 210, kZero = 32, kLargest = 63;
    static constexpr bool kHalves = true;
    static INLINE void scale(const uint8_t *g, F8 *s) {
        const float d = half_to_float(g + 208);
        s[0] = signed_bytes(load<uint64_t>(g + 192)) * d;
        s[1] = signed_bytes(load<uint64_t>(g + 200)) * d;
    }
    // Blocks 0 and 1 are the low nibbles of 64 bytes, 2 and 3 the high ones; their upper two bits
    // share 32 bytes.
    static INLINE B32 codes(const uint8_t *g, int b) {
        const B32 both = load32(g + b / 4 * 64 + b % 2 * 32), qh = load32(g + 128 + b / 4 * 32);
        switch (b % 4) {
            case 0:
                return bit_or(low4(both), upper_bits<0, 2>(qh));
            case 1:
                return bit_or(low4(both), upper_bits<2, 2>(qh));
            case 2:
                return bit_or(high4(both), upper_bits<4, 2>(qh));
            default:
                return bit_or(high4(both), upper_bits<6, 2>(qh));
        }
    }
};

}  // namespace

#include "runtime/native/gemm/low_bit_decoders.hpp"

namespace {

// Float formats: a row is elements, one register at a time.
struct DecodeF32 {
    static constexpr int bytes = 4;
    static INLINE F elements(const uint8_t *p) { return load<F>(p); }
};
struct DecodeF16 {
    static constexpr int bytes = 2;
    static INLINE F elements(const uint8_t *p) {
        return load_half(reinterpret_cast<const uint16_t *>(p));
    }
};
struct DecodeBF16 {
    static constexpr int bytes = 2;
    static INLINE F elements(const uint8_t *p) {
        return load_bf16(reinterpret_cast<const uint16_t *>(p));
    }
};

template <class D>
concept BlockDecoder = requires { D::group_bytes; };
template <class D>
concept FloatDecoder = requires { D::bytes; };

}  // namespace

#if defined(__AVX512VBMI__)
#include "runtime/native/isa/x86/pairs512.hpp"
#endif
