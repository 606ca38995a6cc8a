// Vector operations on the compiler's own vector types, the same for every instruction set. Each
// set's header includes this file after it has defined kLanes.
//
// Everything in these headers has internal linkage: each object that includes them is compiled for
// another processor.
#pragma once

#include <cstdint>
#include <cstring>

#include "quant/native/round_magic.hpp"

namespace {

using sprat::kRoundMagic;
using sprat::kRoundMagicBits;

typedef float F __attribute__((vector_size(4 * kLanes)));    // one register of float32
typedef int32_t I __attribute__((vector_size(4 * kLanes)));  // one register of int32
typedef int8_t Bytes __attribute__((vector_size(kLanes)));   // a register of I, narrowed
typedef int32_t I8 __attribute__((vector_size(32)));
typedef uint8_t U8x8 __attribute__((vector_size(8)));
typedef int8_t S8x8 __attribute__((vector_size(8)));

#define INLINE inline __attribute__((always_inline))

template <class V, class T> INLINE V load(const T *p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T> INLINE void store(T *p, V v) { std::memcpy(p, &v, sizeof v); }

// x in every lane. Zeros are taken off, not added: x - 0 is x, also where x is -0, so that nothing
// of it is left to compute.
template <class V, class T> INLINE V in_every_lane(T x) { return x - V{}; }
INLINE F broadcast(float x) { return in_every_lane<F>(x); }
INLINE F to_float(I x) { return __builtin_convertvector(x, F); }
INLINE F max(F a, F b) { return a > b ? a : b; }
INLINE float max(float a, float b) { return a > b ? a : b; }
INLINE int min(int64_t a, int64_t b) { return int(a < b ? a : b); }
INLINE int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// exp to 2 ulp: 2^n * exp(r) with |r| <= ln(2) / 2, Cephes' polynomial (expf.c). 0 below -87, so
// that masked scores vanish; but NaN for minus infinity, which only damaged weights and overflow
// make.
INLINE F exp(F x) {
    const F magic = broadcast(kRoundMagic);
    const F top = broadcast(88.0f);
    const F clamped = x > top ? top : x;  // NaN stays NaN
    const F n = (clamped * 1.44269504088896341f + magic) - magic;
    const F r = (clamped - n * 0.693359375f) +
                n * 2.12194440e-4f;  // ln(2) in two parts: n * the first is exact
    F p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const F safe = n > broadcast(-126.0f) ? n : broadcast(-126.0f);
    const I exponent = (__builtin_convertvector(safe, I) + 127) << 23;
    return x < broadcast(-87.0f) ? x - x : p * (F)exponent;
}

}  // namespace
