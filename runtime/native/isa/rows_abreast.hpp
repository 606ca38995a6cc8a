// Tiles of many_tokens.hpp whose registers hold LANES rows' dot products with one token.
#pragma once

namespace {

constexpr int ABREAST = 1;  // tokens of a register

// Columns of codes as a tile wants them.
INLINE void abreast(I *) {}

// The next four numbers of a token, for every row.
INLINE auto activations(const int8_t *const *q, int at) { return repeat4(q[0] + at); }

template <class V, class T> INLINE V of_tokens(const T *x) { return V{} + *x; }
INLINE F of_rows(const float *x, int) { return load<F>(x); }

}  // namespace
