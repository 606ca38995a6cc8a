// How a tile of gemm/gemm.hpp adds up a block where one instruction adds four products of bytes to
// a lane of 32 bits.
#pragma once

namespace {

template <bool kSigned> struct QuadSums {
    typedef I Sum;

    static INLINE Sum begin(I start) { return start; }
    template <class X> static INLINE void add(Sum &sum, int step, const uint8_t *codes, X x) {
        sum = panel_dot<kSigned>(sum, codes, x, step);
    }
    static INLINE I total(Sum sum, I) { return sum; }
};

// Of a decoder. Compiled for each kind of codes, of which there are fewer than decoders.
template <class D> using PanelSums = QuadSums<D::kSigned>;

}  // namespace
