// Steps of GEMV (gemm/gemv.hpp) of four blocks each, whose int32 sums are added in pairs until each
// block has a lane. One conversion and one multiply-add with four scales then do for four blocks; a
// Cortex-A76 converts four integers in two cycles, in one of its two vector units.
#pragma once

#include "runtime/native/gemm/decoders.hpp"

namespace {

// A lane for each register's sum.
INLINE I sums_of_four(const I (&v)[4]) {
    const int32x4_t low = vpaddq_s32((int32x4_t)v[0], (int32x4_t)v[1]);
    return (I)vpaddq_s32(low, vpaddq_s32((int32x4_t)v[2], (int32x4_t)v[3]));
}

template <BlockDecoder D> struct Steps<D> {
    static constexpr int N = 2, kBlocks = 4, kBiasLeft = kBias<D>;
    struct Codes {
        B32 block[kBlocks];
    };
    typedef const int8_t *Input;

    static INLINE Codes codes(const uint8_t *g, int c) {
        return {D::codes(g, 4 * c), D::codes(g, 4 * c + 1), D::codes(g, 4 * c + 2),
                D::codes(g, 4 * c + 3)};
    }
    static INLINE Input input(const Token &x, int64_t block) { return x.q + 32 * block; }
    static INLINE F add(F total, const Codes &codes, Input x, const F8 *scale, int c) {
        const B32 *b = codes.block;
        if constexpr (D::kHalves) {
            const I first[4] = {dot16(b[0].low, x), dot16(b[0].high, x + 16),
                                dot16(b[1].low, x + 32), dot16(b[1].high, x + 48)};
            const I second[4] = {dot16(b[2].low, x + 64), dot16(b[2].high, x + 80),
                                 dot16(b[3].low, x + 96), dot16(b[3].high, x + 112)};
            total += to_float(sums_of_four(first)) * scale[c].low;
            return total + to_float(sums_of_four(second)) * scale[c].high;
        } else {
            const I dots[4] = {dot32<D::kSigned>(b[0], x), dot32<D::kSigned>(b[1], x + 32),
                               dot32<D::kSigned>(b[2], x + 64), dot32<D::kSigned>(b[3], x + 96)};
            return total + to_float(sums_of_four(dots)) * (c ? scale[0].high : scale[0].low);
        }
    }
};

}  // namespace
