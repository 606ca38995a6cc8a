// Tiles of gemm/gemm.hpp that load four codes of a token at a time, for every row.
#pragma once

namespace {

constexpr int kStepsPerLoad = 1;

INLINE auto load_activations(const int8_t *const *q, int at) { return broadcast4(q[0] + at); }

}  // namespace
