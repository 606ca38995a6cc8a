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

INLINE float half_at(const uint8_t *halves, int i) { return half_to_float(halves + 2 * i); }

// The numbers that a row keeps as codes, and zeros up to a whole register.
INLINE void widen_int8(const Rows &rows, const uint8_t *row, float *to) {
    for (int g = 0; g < rows.n_groups(); ++g) {
        const float scale = half_at(row + rows.scales_at(), g);
        const int at = g * rows.group, n = least(rows.n_int8 - at, rows.group);
        for (int i = 0; i < n; i += LANES) store(to + at + i, load_int8(row + at + i) * scale);
    }
}

// Row `r` of `dim` numbers, and zeros up to `padded`, a multiple of LANES.
INLINE void widen(const Rows &rows, int64_t r, int dim, float *to, int padded) {
    const uint8_t *from = rows.data + r * rows.stride;
    if (rows.floats) {
        std::memcpy(to, from, dim * sizeof(float));
    } else {
        widen_int8(rows, from, to);
        widen_halves(from + rows.halves_at(), dim - rows.n_int8, to + rows.n_int8);
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

INLINE float largest_int8(const uint8_t *scales, int n_groups) {
    uint16_t largest = 0;
    for (int g = 0; g < n_groups; ++g) {
        const uint16_t scale = load<uint16_t>(scales + 2 * g) & 0x7fff;
        largest = scale > largest ? scale : largest;
    }
    return 128 * half_at(reinterpret_cast<const uint8_t *>(&largest), 0);
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

// Whole groups of codes as words.
INLINE void pack_int8(const Rows &rows, const uint8_t *row, float inverse, int32_t *out) {
    for (int g = 0; g < rows.n_groups(); ++g) {
        const float scale = half_at(row + rows.scales_at(), g) * inverse;
        for (const uint8_t *at = row + g * rows.group, *end = at + rows.group; at < end; at += 2 * LANES, out += LANES) {
            const F numbers[2] = {load_int8(at) * scale, load_int8(at + LANES) * scale};
            store(out, PairWords::pack(numbers));
        }
    }
}

// Row `r` of `dim` numbers as words, zeros up to `padded`; returns their scale. `space` holds a row in float32.
template <class W>
INLINE float pack_stored(const Rows &rows, int64_t r, int dim, int padded, float *space, typename W::Word *out) {
    if constexpr (W::NUMBERS == 2) {
        if (!rows.floats && rows.n_int8 % rows.group == 0) {
            const int n_halves = dim - rows.n_int8;
            const uint8_t *from = rows.data + r * rows.stride;
            const uint16_t *halves = reinterpret_cast<const uint16_t *>(from + rows.halves_at());
            const float size = largest_half(halves, n_halves), of_codes = largest_int8(from + rows.scales_at(), rows.n_groups());
            const float scale = (of_codes <= size || size != size ? size : of_codes) / CODE_LIMIT;
            const float inverse = inverse_of(scale);
            pack_int8(rows, from, inverse, out);
            pack_halves(halves, n_halves, padded - rows.n_int8, inverse, out + rows.n_int8 / 2);
            return scale;
        }
    }
    widen(rows, r, dim, space, padded);
    return pack_row<W>(space, padded, CODE_LIMIT, out);
}

}  // namespace
