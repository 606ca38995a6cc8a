// Tiles of gemm/gemm.hpp whose registers hold kLanes rows' dot products with one token.
#pragma once

namespace {

constexpr int kTokensPerVector = 1;

// Transposed codes already lie as a tile wants them.
INLINE void interleave_rows(I *) {}

// Values of the tokens that share a register, side by side.
template <class V, class T> INLINE void store_interleaved(const V (&values)[1], T *to) {
    store(to, values[0]);
}
template <class V, class T> INLINE V broadcast_tokens(const T *x) { return in_every_lane<V>(*x); }
INLINE F load_row_scales(const float *x, int) { return load<F>(x); }

}  // namespace
