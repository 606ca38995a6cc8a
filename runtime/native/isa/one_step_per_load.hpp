// Tiles of gemm/gemm.hpp that load four codes of a token at a time, for every row.
#pragma once

namespace {

constexpr int kStepsPerLoad = 1;
constexpr bool kCenteredPanels = false;  // see gemm/panel.hpp
constexpr bool kShiftedScales = false;

INLINE void all_written() {}
INLINE I dot_start(int, int) { return I{} + kDotStart; }
INLINE auto load_activations(const int8_t *const *q, int at) { return broadcast4(q[0] + at); }

// A block's dot products x of some rows with the tokens at `factor`: total + x * scale * factor.
template <class V>
INLINE F add_block(F total, V dots, F scale, const float *, const float *factor, int, int) {
    return total + scaled(dots, scale) * broadcast_tokens<F>(factor);
}
INLINE F add_minimum(F total, F minimum, const float *factor) {
    return total + minimum * broadcast_tokens<F>(factor);
}

}  // namespace
