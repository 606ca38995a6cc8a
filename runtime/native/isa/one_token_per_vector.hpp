// Tiles of gemm/gemm.hpp whose registers hold kLanes rows' dot products with one token.
#pragma once

namespace {

constexpr int kTokensPerVector = 1;

// Transposed codes already lie as a tile wants them.
INLINE void interleave_rows(I *) {}

// The next four codes of a token, for every row.
INLINE auto load_activations(const int8_t *const *q, int at) { return broadcast4(q[0] + at); }

template <class V, class T> INLINE V broadcast_tokens(const T *x) { return V{} + *x; }
INLINE F load_row_scales(const float *x, int) { return load<F>(x); }

}  // namespace
