// Decoders of the formats below 4.5 bits; decoders.hpp says what a decoder is. Layouts of a
// super-block of 256, or of blocks of 32 and 64:
//
//   IQ4_XS  | d | scales_h: 16 bits | scales_l[4] | qs[128] |    qs: indices of IQ4_NL's table
//   Q3_K    | hmask[32] | qs[2][32] | scales[12] | d |
//   Q2_K    | scales[16] | qs[2][32] | d | dmin |
//   Q2_0    | d | qs[16] |                                       64 codes, four to a byte
//   MXFP4   | e | qs[16] |                                       32 codes, e: exponent of the scale
//   NVFP4   | e[4] | qs[4][8] |                                  4 x 16 codes, e: UE4M3
#pragma once

namespace {

// The i-th field of kBits bits of each byte, at bit kTo.
template <int kBits, int kTo> INLINE B32 field_at(B32 v, int i) {
    switch (i * kBits) {
        case 0:
            return field<0, kBits, kTo>(v);
        case 1:
            return field<1, kBits, kTo>(v);
        case 2:
            return field<2, kBits, kTo>(v);
        case 3:
            return field<3, kBits, kTo>(v);
        case 4:
            return field<4, kBits, kTo>(v);
        case 5:
            return field<5, kBits, kTo>(v);
        case 6:
            return field<6, kBits, kTo>(v);
        default:
            return field<7, kBits, kTo>(v);
    }
}

struct DecodeIQ4_XS : BlockOf32 {
    static constexpr int group_bytes = 136, kLargest = 127;
    static constexpr bool kSigned = true;
    static INLINE void scale(const uint8_t *g, F8 *s) {
        const I8 eight = {0, 1, 2, 3, 4, 5, 6, 7};
        const I8 low = ((I8{} + load<int32_t>(g + 4)) >> (4 * eight)) & 15;
        const I8 high = ((I8{} + load<uint16_t>(g + 2)) >> (2 * eight)) & 3;
        const I8 six_bits = (low | high << 4) - 32;
        s[0] = integers8(reinterpret_cast<const int32_t *>(&six_bits)) * half_to_float(g);
    }
    // The same scales as bytes, before 32 is taken off. Each step halves what lies together.
    static INLINE uint64_t scale_bytes(const uint8_t *g) {
        uint64_t low = load<uint32_t>(g + 4), high = load<uint16_t>(g + 2);
        low = (low | low << 16) & 0x0000ffff0000ffff;
        low = (low | low << 8) & 0x00ff00ff00ff00ff;
        low = (low | low << 4) & 0x0f0f0f0f0f0f0f0f;
        high = (high | high << 24) & 0x000000ff000000ff;
        high = (high | high << 12) & 0x000f000f000f000f;
        high = (high | high << 6) & 0x0303030303030303;
        return low | high << 4;
    }
    static INLINE B32 codes(const uint8_t *g, int b) {
        return shuffle(nibbles(g + 8 + 16 * b), DecodeIQ4_NL::values);
    }
};

struct U64x2 {
    uint64_t low, high;
};

struct DecodeQ3_K : BlockOf32 {
    static constexpr int group_bytes = 110, kZero = 4;
    static constexpr bool kHalves = true;
    // Low nibbles of scales i and 8 + i in byte i; upper bits of i, 4 + i, 8 + i, 12 + i in 8 + i.
    static INLINE U64x2 scale_bytes(const uint8_t *g) {
        const uint64_t low = load<uint64_t>(g + 96), pairs = load<uint32_t>(g + 104);
        const uint64_t upper = pairs | pairs << 30;  // two of the four pairs at the same bits
        const uint64_t nibble = 0x0f0f0f0f0f0f0f0f, pair = 0x0303030303030303;
        return {(low & nibble) | (upper & pair) << 4, (low >> 4 & nibble) | (upper >> 4 & pair)
                                                                                << 4};
    }
    static INLINE void scale(const uint8_t *g, F8 *s) {
        const U64x2 bytes = scale_bytes(g);
        const float d = half_to_float(g + 108);
        s[0] = (unsigned_bytes(bytes.low) - 32.0f) * d;
        s[1] = (unsigned_bytes(bytes.high) - 32.0f) * d;
    }
    static INLINE B32 codes(const uint8_t *g, int b) {
        return bit_or(field_at<2, 0>(load32(g + 32 + b / 4 * 32), b % 4),
                      field_at<1, 2>(load32(g), b));
    }
};

struct DecodeQ2_K : BlockOf32 {
    static constexpr int group_bytes = 84;
    static constexpr bool kHalves = true, kHasMin = true;
    static INLINE void scale(const uint8_t *g, F8 *s) {
        nibbles_times(g, 0, half_to_float(g + 80), s);
    }
    static INLINE void min(const uint8_t *g, F8 *m) {
        nibbles_times(g, 4, -half_to_float(g + 82), m);
    }
    static INLINE B32 codes(const uint8_t *g, int b) {
        return field_at<2, 0>(load32(g + 16 + b / 4 * 32), b % 4);
    }

  private:
    static INLINE void nibbles_times(const uint8_t *g, int shift, float d, F8 *to) {
        for (int i = 0; i < 2; ++i)
            to[i] = unsigned_bytes(load<uint64_t>(g + 8 * i) >> shift & 0x0f0f0f0f0f0f0f0f) * d;
    }
};

struct DecodeQ2_0 : BlockOf32 {
    static constexpr int block_bytes = 18, group_bytes = 4 * block_bytes, kZero = 1;
    static INLINE void scale(const uint8_t *g, F8 *s) {
        const float d[8] = {half_to_float(g), half_to_float(g + 18), half_to_float(g + 36),
                            half_to_float(g + 54)};
        s[0] = twice<0>(load8(d));
    }
    static INLINE B32 codes(const uint8_t *g, int b) {
        return spread_pairs(g + b / 2 * block_bytes + 2 + b % 2 * 8);
    }
};

typedef uint8_t U8x16 __attribute__((vector_size(16)));
typedef uint16_t U16x16 __attribute__((vector_size(32)));

// Levels of E2M1, doubled.
constexpr int8_t kFp4Levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

struct DecodeMXFP4 : BlockOf32 {
    static constexpr int block_bytes = 17, group_bytes = 8 * block_bytes;
    static constexpr bool kSigned = true;
    // 2^(e - 128). Above 2^95 NaN, as in quant/formats/fp4.py: some steps of a product, and not the
    // same in every instruction set, would overflow.
    static INLINE void scale(const uint8_t *g, F8 *s) {
        const I8 e = {g[0], g[17], g[34], g[51], g[68], g[85], g[102], g[119]};
        const I8 subnormal = e == 0 ? I8{} + 0x00200000 : I8{} + 0x00400000;
        const I8 power = e < 2 ? subnormal : (e - 1) << 23;
        const I8 bits = e > 223 ? I8{} + 0x7fc00000 : power;
        s[0] = load8(reinterpret_cast<const float *>(&bits));
    }
    static INLINE B32 codes(const uint8_t *g, int b) {
        return shuffle(nibbles(g + b * block_bytes + 1), kFp4Levels);
    }
};

struct DecodeNVFP4 : BlockOf32 {
    static constexpr int group_bytes = 4 * 36;
    static constexpr bool kSigned = true, kHalves = true;
    // UE4M3 has the exponent's width less one and a shorter mantissa than binary16: shifted there,
    // 2^8 corrects the bias. Half of it, as the levels are doubled.
    static INLINE void scale(const uint8_t *g, F8 *s) {
        uint32_t four[4];
        uint16_t half[16];
        for (int i = 0; i < 4; ++i) four[i] = load<uint32_t>(g + 36 * i);
        const U8x16 e = load<U8x16>(four);
        const U16x16 wide = __builtin_convertvector(e, U16x16);
        store(half, wide == 0x7f ? U16x16{} : (wide & 0x7f) << 7);
        for (int i = 0; i < 2; ++i)
            s[i] = scales8(reinterpret_cast<const uint8_t *>(half + 8 * i), 2) * 128.0f;
    }
    static INLINE B32 codes(const uint8_t *g, int b) {
        return middle_swapped(shuffle(nibbles(g + b / 2 * 36 + 4 + b % 2 * 16), kFp4Levels));
    }
};

}  // namespace
