// Sums across lanes, of several registers together where an instruction set has a better way
// (isa/x86/avx512.hpp).
#pragma once

namespace {

template <int N> INLINE void reduce_add_rows(const F (&v)[N], float *to) {
    for (int r = 0; r < N; ++r) to[r] = reduce_add(v[r]);
}

}  // namespace
