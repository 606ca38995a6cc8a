// Rows of a cache as float32 or as words, whatever they are stored as.
#pragma once

#include "runtime/native/matrix.hpp"
#include "runtime/native/words.hpp"

namespace {

using sprat::Rows;

INLINE void widen_halves(const uint8_t *from, int n, float *to) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) store(to + i, load_half(reinterpret_cast<const uint16_t *>(from) + i));
    if (i < n) {
        uint16_t rest[LANES] = {};
        std::memcpy(rest, from + 2 * i, (n - i) * sizeof(uint16_t));
        const F numbers = load_half(rest);
        std::memcpy(to + i, &numbers, (n - i) * sizeof(float));
    }
}

// Blocks of Q8_0: a binary16 scale and 32 codes. The last one may be padded.
INLINE void widen_int8(const uint8_t *from, int n, float *to) {
    for (int i = 0; i < n; i += 32, from += 34) {
        float rest[32], *into = n - i < 32 ? rest : to + i;
        const float scale = half_to_float(from);
        for (int j = 0; j < 32; j += LANES) store(into + j, load_int8(from + 2 + j) * scale);
        if (into == rest) std::memcpy(to + i, rest, (n - i) * sizeof(float));
    }
}

// Row `r` of `dim` numbers, and zeros up to `padded`.
INLINE void widen(const Rows &rows, int64_t r, int dim, float *to, int padded) {
    const uint8_t *from = rows.data + r * rows.stride;
    if (rows.floats) {
        std::memcpy(to, from, dim * sizeof(float));
    } else {
        widen_int8(from, rows.n_int8, to);
        widen_halves(from + (rows.n_int8 + 31) / 32 * 34, dim - rows.n_int8, to + rows.n_int8);
    }
    for (int i = dim; i < padded; ++i) to[i] = 0;
}

// The largest size of a row's numbers, or a little more. By the bits, as of integers: infinity and NaN stay what they are.
INLINE float largest_half(const uint16_t *from, int n) {
    typedef uint16_t Halves __attribute__((vector_size(4 * LANES)));
    Halves largest{};
    const auto see = [&](Halves bits) { largest = (bits & 0x7fff) > largest ? bits & 0x7fff : largest; };
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) see(load<Halves>(from + i));
    if (i < n) {
        uint16_t rest[2 * LANES] = {};
        std::memcpy(rest, from + i, (n - i) * sizeof(uint16_t));
        see(load<Halves>(rest));
    }
    const I low = (I)largest & 0xffff, high = (I)largest >> 16;
    const uint16_t half = uint16_t(largest_lane(low > high ? low : high));
    return half_to_float(reinterpret_cast<const uint8_t *>(&half));
}

INLINE float largest_int8(const uint8_t *from, int n_blocks) {
    uint16_t largest = 0;
    for (int b = 0; b < n_blocks; ++b) {
        const uint16_t scale = load<uint16_t>(from + 34 * b) & 0x7fff;
        largest = scale > largest ? scale : largest;
    }
    return 128 * half_to_float(reinterpret_cast<const uint8_t *>(&largest));
}

// n halves as words, and zeros up to `padded`.
INLINE void pack_halves(const uint16_t *from, int n, int padded, float inverse, int32_t *out) {
    const auto pack = [&](const uint16_t *at) {
        const F numbers[2] = {load_half(at) * inverse, load_half(at + LANES) * inverse};
        return PairWords::pack(numbers);
    };
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) store(out + i / 2, pack(from + i));
    if (i == padded) return;
    uint16_t rest[2 * LANES] = {};
    std::memcpy(rest, from + i, (n - i) * sizeof(uint16_t));
    store(out + i / 2, pack(rest));
    for (i += 2 * LANES; i < padded; i += 2 * LANES) store(out + i / 2, I{});
}

// Blocks of Q8_0 as words; the scale of a word is its block's.
INLINE void pack_int8(const uint8_t *from, int n, float inverse, int32_t *out) {
    for (int i = 0; i < n; i += 32, from += 34) {
        const float scale = half_to_float(from) * inverse;
        for (int j = 0; j < 32; j += 2 * LANES, out += LANES) {
            const F numbers[2] = {load_int8(from + 2 + j) * scale, load_int8(from + 2 + j + LANES) * scale};
            store(out, PairWords::pack(numbers));
        }
    }
}

// Row `r` of `dim` numbers as words, zeros up to `padded`; returns their scale. `space` holds a row in float32.
template <class W>
INLINE float pack_stored(const Rows &rows, int64_t r, int dim, int padded, float *space, typename W::Word *out) {
    if constexpr (W::NUMBERS == 2) {
        if (!rows.floats && rows.n_int8 % 32 == 0) {
            const int n_blocks = rows.n_int8 / 32, n_halves = dim - rows.n_int8;
            const uint8_t *from = rows.data + r * rows.stride;
            const uint16_t *halves = reinterpret_cast<const uint16_t *>(from + 34 * n_blocks);
            const float size = largest_half(halves, n_halves), of_blocks = largest_int8(from, n_blocks);
            const float scale = (of_blocks <= size || size != size ? size : of_blocks) / CODE_LIMIT;
            const float inverse = inverse_of(scale);
            pack_int8(from, rows.n_int8, inverse, out);
            pack_halves(halves, n_halves, padded - rows.n_int8, inverse, out + rows.n_int8 / 2);
            return scale;
        }
    }
    widen(rows, r, dim, space, padded);
    return pack_row<W>(space, padded, CODE_LIMIT, out);
}

}  // namespace
