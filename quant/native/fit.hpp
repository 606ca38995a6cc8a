// The scale search of quant/formats/fit.py, with the same float32 operations in the same order.
// Each lane of a vector holds a block of its own:
//
//   row[0]    | x[0] of block 0  | x[0] of block 1  | ... | x[0] of block 15  |
//   row[1]    | x[1] of block 0  | x[1] of block 1  | ...
//
// so that a sum over a block is a loop over rows, in NumPy's order, and W blocks are fitted at
// once.
#pragma once

#include "quant/native/vector.hpp"

#include <algorithm>

namespace sprat {

// Blocks that are fitted together: the 16 of one super-block of Q6_K, or of two of Q4_K.
constexpr int kLanes = 16;

// The rows of kLanes blocks: row j holds the j-th weight of each.
template <int rows> struct alignas(64) LaneBlock {
    float row[rows][kLanes];
};

// NaN and values too small for any block become 0; values too large for any block are clipped.
SPRAT_INLINE float sanitize(float value) {
    const float magnitude = from_bits(bits_of(value) & 0x7fffffff);
    const float known = magnitude >= 0x1p-60f ? value : 0.f;
    const float low = known < -0x1p30f ? -0x1p30f : known;
    return low > 0x1p30f ? 0x1p30f : low;
}

// The first n of kLanes blocks; the others are zero.
template <int rows> SPRAT_INLINE void to_lanes(const float *weights, int n, LaneBlock<rows> &x) {
    for (int lane = 0; lane < kLanes; ++lane)
        for (int j = 0; j < rows; ++j)
            x.row[j][lane] = lane < n ? sanitize(weights[lane * rows + j]) : 0.f;
}

template <int W> struct Affine {
    Floats<W> s, m;
};

// affine_fit: s and m for the lanes from `lane` on, x ~ s * q - m.
template <int W>
SPRAT_INLINE Affine<W> affine_fit(const LaneBlock<32> &x, int lane, float largest) {
    using F = Floats<W>;
    const auto row = [&](int j) SPRAT_INLINED { return load<W>(&x.row[j][lane]); };
    F low = row(0), high = low, total{};
    for (int j = 0; j < 32; ++j) {
        low = smaller(low, row(j));
        high = larger(high, row(j));
        total += row(j);
    }
    low = smaller(low, F{});
    const F inverse = reciprocal(high - low);
    Affine<W> best{};
    F error = splat<W>(__builtin_inff());
    F q[32];

    const auto keep_better = [&]() SPRAT_INLINED {
        F sum_q{}, sum_qq{}, sum_xq{}, new_error{};
        for (int j = 0; j < 32; ++j) {
            sum_q += q[j];
            sum_qq += q[j] * q[j];
            sum_xq += row(j) * q[j];
        }
        const F determinant = 32.f * sum_qq - sum_q * sum_q;
        F s = over(32.f * sum_xq - total * sum_q, determinant);
        F m =
            determinant != 0.f ? over(sum_q * sum_xq - total * sum_qq, determinant) : total / -32.f;
        s = larger(m < 0.f ? over(sum_xq, sum_qq) : s, F{});
        m = m < 0.f ? F{} : m;
        for (int j = 0; j < 32; ++j) {
            const F difference = (s * q[j] - m) - row(j);
            new_error += difference * difference;
        }
        best.s = new_error < error ? s : best.s;
        best.m = new_error < error ? m : best.m;
        error = new_error < error ? new_error : error;
    };

    for (int start = -4; start <= 4; ++start) {
        const F step = (largest + float(start) / 4) * inverse;
        for (int j = 0; j < 32; ++j) q[j] = nearest_whole((row(j) - low) * step, 0.f, largest);
        keep_better();
    }
    const F per_scale = reciprocal(best.s);
    for (int j = 0; j < 32; ++j) q[j] = nearest_whole((row(j) + best.m) * per_scale, 0.f, largest);
    keep_better();
    return best;
}

// scale_fit: s for the lanes from `lane` on, x ~ s * nearest(x / s); n starts, the k-th given by
// start(k).
template <int W, int rows, class Start, class Nearest>
SPRAT_INLINE Floats<W> scale_fit(const LaneBlock<rows> &x, int lane, int n, Start start,
                                 Nearest nearest) {
    using F = Floats<W>;
    const auto row = [&](int j) SPRAT_INLINED { return load<W>(&x.row[j][lane]); };
    F extreme{};
    for (int j = 0; j < rows; ++j)
        extreme = magnitude(row(j)) > magnitude(extreme) ? row(j) : extreme;
    const F inverse = reciprocal(extreme);
    F s{}, gain{};
    for (int k = 0; k < n; ++k) {
        const F step = start(k) * inverse;
        F product{}, squares{};
        for (int j = 0; j < rows; ++j) {
            const F q = nearest(row(j) * step);
            product += row(j) * q;
            squares += q * q;
        }
        const F new_s = over(product, squares), new_gain = product * new_s;
        s = new_gain > gain ? new_s : s;
        gain = new_gain > gain ? new_gain : gain;
    }
    return s;
}

}  // namespace sprat
