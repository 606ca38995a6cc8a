// Rows of a cache as float32, whatever they are stored as.
#pragma once

#include "runtime/native/matrix.hpp"

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

}  // namespace
