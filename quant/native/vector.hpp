// Vectors of W elements: operators become instructions of whichever target the enclosing function
// is compiled for.
#pragma once

#include "quant/native/half.hpp"
#include "quant/native/round_magic.hpp"

namespace sprat {

template <int W>
struct Vector {  // no alias templates of vector_size: GCC drops the attribute there
    typedef float floats __attribute__((vector_size(4 * W)));
    typedef int32_t ints __attribute__((vector_size(4 * W)));
    typedef uint8_t bytes __attribute__((vector_size(W)));
};
template <int W> using Floats = typename Vector<W>::floats;
template <int W> using Ints = typename Vector<W>::ints;
template <int W> using Bytes = typename Vector<W>::bytes;

template <int W> SPRAT_INLINE Floats<W> load(const float *from) {
    Floats<W> value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <int W> SPRAT_INLINE void store(float *to, Floats<W> value) {
    std::memcpy(to, &value, sizeof value);
}
template <int W> SPRAT_INLINE Ints<W> load_bytes(const uint8_t *from) {
    Bytes<W> value;
    std::memcpy(&value, from, sizeof value);
    return __builtin_convertvector(value, Ints<W>);
}
template <int W> SPRAT_INLINE void store_bytes(uint8_t *to, Ints<W> value) {
    const Bytes<W> narrow = __builtin_convertvector(value, Bytes<W>);
    std::memcpy(to, &narrow, sizeof narrow);
}
template <int W> SPRAT_INLINE Floats<W> splat(float value) { return Floats<W>{} + value; }

// 0, 1, 2, ...
template <int W> SPRAT_INLINE Ints<W> counting() {
    constexpr int32_t numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Ints<W> value;
    std::memcpy(&value, numbers, sizeof value);
    return value;
}

template <class V> SPRAT_INLINE V smaller(V a, V b) { return a < b ? a : b; }
template <class V> SPRAT_INLINE V larger(V a, V b) { return a > b ? a : b; }
template <class F> SPRAT_INLINE F magnitude(F a) { return a < 0.f ? -a : a; }
template <class F> SPRAT_INLINE F over(F numerator, F denominator) {
    return denominator != 0.f ? numerator / denominator : F{};
}
template <class F> SPRAT_INLINE F reciprocal(F value) { return over(F{} + 1.f, value); }

// The nearest integers within the bounds, the even one half way.
template <class F> SPRAT_INLINE F nearest_whole(F value, float smallest, float largest) {
    const F low = larger(value, F{} + smallest), within = smaller(low, F{} + largest);
    return (within + kRoundMagic) - kRoundMagic;
}

// All lanes reduced by an operation that is associative and commutative.
template <int W, class Operation>
SPRAT_INLINE int32_t fold(Ints<W> value, const Operation &operation) {
    if constexpr (W == 4) {
        return operation(operation(value[0], value[1]), operation(value[2], value[3]));
    } else {
        Ints<W / 2> halves[2];
        std::memcpy(halves, &value, sizeof value);
        return fold<W / 2>(operation(halves[0], halves[1]), operation);
    }
}

}  // namespace sprat
