// Eight floats, one value per block of a group, in two registers of four. GCC keeps a vector that
// is wider than a register in memory, and converts its elements one by one.
#pragma once

namespace {

struct F8 {
    F low{}, high{};

    INLINE float operator[](int i) const { return i < 4 ? low[i] : high[i - 4]; }
    INLINE void operator+=(F8 b) { low += b.low, high += b.high; }
};
INLINE F8 operator+(F8 a, F8 b) { return {a.low + b.low, a.high + b.high}; }
INLINE F8 operator*(F8 a, F8 b) { return {a.low * b.low, a.high * b.high}; }
INLINE F8 operator*(F8 a, float b) { return {a.low * b, a.high * b}; }
INLINE F8 operator-(F8 a, float b) { return {a.low - b, a.high - b}; }

INLINE F8 load8(const float *p) { return {load<F>(p), load<F>(p + 4)}; }
INLINE F8 integers8(const int32_t *p) { return {to_float(load<I>(p)), to_float(load<I>(p + 4))}; }

// v0 v0 v1 v1 v2 v2 v3 v3, or from another element on.
template <int kFirst> INLINE F8 twice(F8 v) {
    const F x = kFirst ? v.high : v.low;
    return {__builtin_shufflevector(x, x, 0, 0, 1, 1), __builtin_shufflevector(x, x, 2, 2, 3, 3)};
}

// In a register whose lanes are summed later: two to a lane.
template <class V = F> INLINE V as_lane_sums(F8 v) { return v.low + v.high; }

}  // namespace
