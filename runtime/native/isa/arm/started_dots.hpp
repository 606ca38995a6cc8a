// Steps of GEMV (gemm/gemv.hpp) of four blocks each, where one instruction adds four products of
// bytes to a lane. Two vector units are the limit of a Cortex-A76, so what need not pass through
// them does not:
//
// - Dot products start where their sum becomes a float by itself: at kDotStart, less the zero point
//   times the sum of the activations. Such starts are made once per token, and loaded into the
//   register that sdot overwrites, in place of a zero that a vector unit would make.
// - The sums of four blocks are added in pairs until each has a lane, so that one subtraction and
//   one multiply-add with four scales do for all.
//
// 256 weights of Q4_0 then take 48 operations of the two units (sdot 16, nibbles 16, addp 6,
// subtraction, scales and multiply-add 6, scales to float32 4), 24 cycles, where they took 62.
#pragma once

#include "runtime/native/gemm/decoders.hpp"

namespace {

// The float of four sums that began at kDotStart.
INLINE F started(I sums) { return (F)sums - kRoundMagic; }

template <BlockDecoder D> struct Steps<D> {
    static constexpr int N = 2, kBlocks = 4, kBiasLeft = 0;
    struct Codes {
        B32 block[kBlocks];
    };
    struct Input {
        const int8_t *q;
        Starts start[D::kHalves ? 2 : 1];
    };

    static INLINE Codes codes(const uint8_t *g, int c) {
        return {{D::codes(g, 4 * c), D::codes(g, 4 * c + 1), D::codes(g, 4 * c + 2),
                 D::codes(g, 4 * c + 3)}};
    }
    static INLINE Input input(const Token &x, int64_t block) {
        const int32_t *sums = D::kHalves ? x.sum16 + 2 * block : x.sum32 + block;
        Input made{x.q + 32 * block, {}};
        for (int i = 0; i < (D::kHalves ? 8 : 4); ++i)
            made.start[i / 4].set(i % 4, kDotStart - kBias<D> * sums[i]);
        return made;
    }
    static INLINE F add(F total, const Codes &codes, const Input &x, const F8 *scale, int c) {
        const B32 *b = codes.block;
        if constexpr (D::kHalves) {
            const uint8x16_t first[4] = {b[0].low, b[0].high, b[1].low, b[1].high},
                             second[4] = {b[2].low, b[2].high, b[3].low, b[3].high};
            total += started(four_sums<16>(x.start[0], first, x.q)) * scale[c].low;
            return total + started(four_sums<16>(x.start[1], second, x.q + 64)) * scale[c].high;
        } else {
            const I dots = four_sums<D::kSigned, 32>(x.start[0], codes.block, x.q);
            return total + started(dots) * (c ? scale[0].high : scale[0].low);
        }
    }
};

}  // namespace

#include "runtime/native/isa/arm/byte_scales.hpp"
