// Eight floats, one value per block of a group, where a register holds as many.
#pragma once

namespace {

typedef float F8 __attribute__((vector_size(32)));

INLINE F8 load8(const float *p) { return load<F8>(p); }
INLINE F8 integers8(const int32_t *p) { return __builtin_convertvector(load<I8>(p), F8); }

// v0 v0 v1 v1 v2 v2 v3 v3, or from another element on.
template <int kFirst> INLINE F8 twice(F8 v) {
    return __builtin_shufflevector(v, v, kFirst, kFirst, kFirst + 1, kFirst + 1, kFirst + 2,
                                   kFirst + 2, kFirst + 3, kFirst + 3);
}

// In a register whose lanes are summed later: zeros behind them.
template <class V = F> INLINE V as_lane_sums(F8 v) {
    if constexpr (kLanes == 16)
        return __builtin_shufflevector(v, F8{}, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8);
    else return v;
}

}  // namespace
