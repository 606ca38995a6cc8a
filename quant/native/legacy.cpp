// Q8_0, Q4_0, Q4_1, Q5_0, Q5_1: blocks of 32 with a scale from their extreme values; see quant/formats/legacy.py.
#include "quant/native/half.h"

#include <algorithm>

namespace sprat {
namespace {

constexpr int SIZE = 32;

struct Range { float low, high; };

// Float order as integer order, because compilers vectorise a maximum of integers and, for NaN's sake, not one of floats.
SPRAT_INLINE int32_t ordered(float value) {
    const int32_t bits = std::bit_cast<int32_t>(value);
    return bits ^ int32_t(uint32_t(bits >> 31) >> 1);
}
SPRAT_INLINE float unordered(int32_t key) { return std::bit_cast<float>(key ^ int32_t(uint32_t(key >> 31) >> 1)); }

SPRAT_INLINE Range range_of(const float *x) {
    int32_t low = ordered(x[0]), high = low;
    for (int j = 0; j < SIZE; ++j) {
        const int32_t key = ordered(x[j]);
        low = std::min(low, key);
        high = std::max(high, key);
    }
    return {unordered(low), unordered(high)};
}

SPRAT_INLINE float first_equal(const float *x, float a, float b) {
    for (int j = 0; j < SIZE; ++j)
        if (x[j] == a || x[j] == b) return x[j];
    return a;
}

SPRAT_INLINE float reciprocal(float d) { return d == 0 ? 0.f : 1.f / d; }

// Codes of non-negative values; 0 for what is not finite.
SPRAT_INLINE void truncate(const float *x, float offset, float scale, float half, int largest, uint8_t *codes) {
    for (int j = 0; j < SIZE; ++j) {
        const float value = (x[j] - offset) * scale + half;
        const int32_t code = int32_t(value >= 0.f && value < 256.f ? value : 0.f);
        codes[j] = uint8_t(std::min(code, largest));
    }
}

// The scale from the first value of largest magnitude, with its sign.
SPRAT_INLINE float symmetric_codes(const float *x, int zero, uint8_t *codes) {
    const auto [low, high] = range_of(x);
    const float extreme = high > -low ? high : high < -low ? low : first_equal(x, low, high);
    const float d = (extreme + 0.f) / float(-zero);
    truncate(x, 0.f, reciprocal(d), float(zero) + 0.5f, 2 * zero - 1, codes);
    return d;
}

struct Affine { float d, m; };

SPRAT_INLINE Affine affine_codes(const float *x, int steps, uint8_t *codes) {
    const auto [low, high] = range_of(x);
    const float m = low == 0 ? first_equal(x, low, low) : low, d = (high - low) / float(steps);
    truncate(x, m, reciprocal(d), 0.5f, steps, codes);
    return {d, m};
}

SPRAT_INLINE void pack_nibbles(const uint8_t *codes, uint8_t *qs) {
    for (int j = 0; j < SIZE / 2; ++j) qs[j] = uint8_t((codes[j] & 15) | codes[j + SIZE / 2] << 4);
}

SPRAT_INLINE void unpack_nibbles(const uint8_t *qs, uint8_t *codes) {
    for (int j = 0; j < SIZE / 2; ++j) {
        codes[j] = qs[j] & 15;
        codes[j + SIZE / 2] = qs[j] >> 4;
    }
}

SPRAT_INLINE void pack_five(const uint8_t *codes, uint8_t *packed) {
    uint32_t fifth = 0;
    for (int j = 0; j < SIZE; ++j) fifth |= uint32_t(codes[j] >> 4) << j;
    std::memcpy(packed, &fifth, 4);
    pack_nibbles(codes, packed + 4);
}

SPRAT_INLINE void unpack_five(const uint8_t *packed, uint8_t *codes) {
    uint32_t fifth;
    std::memcpy(&fifth, packed, 4);
    unpack_nibbles(packed + 4, codes);
    for (int j = 0; j < SIZE; ++j) codes[j] |= uint8_t((fifth >> j & 1) << 4);
}

struct Q8_0 {
    static constexpr int ggml_type = 8;
    static constexpr size_t block_size = SIZE, block_bytes = 2 + SIZE;

    template <int> SPRAT_INLINE void pack(const float *x, uint8_t *packed, size_t n) {
        for (; n; --n, x += SIZE, packed += block_bytes) {
            uint32_t largest = 0;
            for (int j = 0; j < SIZE; ++j) largest = std::max(largest, bits_of(x[j]) & 0x7fffffff);
            const float d = from_bits(largest) / 127.f, scale = reciprocal(d);
            store_half(packed, d);
            for (int j = 0; j < SIZE; ++j) {
                const float scaled = x[j] * scale, magnitude = from_bits(bits_of(scaled) & 0x7fffffff);
                const float known = magnitude < 256.f ? magnitude : 0.f;
                const int32_t whole = int32_t(known);
                const int32_t rounded = whole + (known - float(whole) >= 0.5f);       // half away from zero
                packed[2 + j] = uint8_t(scaled < 0 ? -rounded : rounded);
            }
        }
    }
    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *x, size_t n) {
        for (; n; --n, x += SIZE, packed += block_bytes) {
            const float d = load_half(packed);
            for (int j = 0; j < SIZE; ++j) x[j] = d * float(int8_t(packed[2 + j]));
        }
    }
};

template <bool five>
struct Symmetric {  // Q4_0, Q5_0: d, qs
    static constexpr int ggml_type = five ? 6 : 2, zero = five ? 16 : 8;
    static constexpr size_t block_size = SIZE, block_bytes = 2 + (five ? 4 : 0) + SIZE / 2;

    template <int> SPRAT_INLINE void pack(const float *x, uint8_t *packed, size_t n) {
        for (; n; --n, x += SIZE, packed += block_bytes) {
            uint8_t codes[SIZE];
            store_half(packed, symmetric_codes(x, zero, codes));
            five ? pack_five(codes, packed + 2) : pack_nibbles(codes, packed + 2);
        }
    }
    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *x, size_t n) {
        for (; n; --n, x += SIZE, packed += block_bytes) {
            uint8_t codes[SIZE];
            five ? unpack_five(packed + 2, codes) : unpack_nibbles(packed + 2, codes);
            const float d = load_half(packed);
            for (int j = 0; j < SIZE; ++j) x[j] = d * float(int32_t(codes[j]) - zero);
        }
    }
};

template <bool five>
struct WithMinimum {  // Q4_1, Q5_1: d, m, qs
    static constexpr int ggml_type = five ? 7 : 3, steps = five ? 31 : 15;
    static constexpr size_t block_size = SIZE, block_bytes = 4 + (five ? 4 : 0) + SIZE / 2;

    template <int> SPRAT_INLINE void pack(const float *x, uint8_t *packed, size_t n) {
        for (; n; --n, x += SIZE, packed += block_bytes) {
            uint8_t codes[SIZE];
            const auto [d, m] = affine_codes(x, steps, codes);
            store_half(packed, d);
            store_half(packed + 2, m);
            five ? pack_five(codes, packed + 4) : pack_nibbles(codes, packed + 4);
        }
    }
    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *x, size_t n) {
        for (; n; --n, x += SIZE, packed += block_bytes) {
            uint8_t codes[SIZE];
            five ? unpack_five(packed + 4, codes) : unpack_nibbles(packed + 4, codes);
            const float d = load_half(packed), m = load_half(packed + 2);
            for (int j = 0; j < SIZE; ++j) x[j] = d * float(int32_t(codes[j])) + m;
        }
    }
};

}  // namespace

Codec q8_0_codec() { return Variants<Q8_0>::codec(); }
Codec q4_0_codec() { return Variants<Symmetric<false>>::codec(); }
Codec q5_0_codec() { return Variants<Symmetric<true>>::codec(); }
Codec q4_1_codec() { return Variants<WithMinimum<false>>::codec(); }
Codec q5_1_codec() { return Variants<WithMinimum<true>>::codec(); }

}  // namespace sprat
