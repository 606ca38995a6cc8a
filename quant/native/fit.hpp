// The scale search of quant/formats/shared/fit.py, with the same float32 operations in the same
// order.
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

// Weights of the squared errors of a lane block. Equal ones cost nothing; others multiply each term
// of a sum, as weigh() in fit.py.
struct EqualWeights {
    static constexpr bool kGiven = false;

    template <class F> SPRAT_INLINED F weigh(F value, int, int) const { return value; }
};
template <int rows> struct GivenWeights {
    static constexpr bool kGiven = true;
    LaneBlock<rows> w;

    template <class F> SPRAT_INLINED F weigh(F value, int j, int lane) const {
        return load<int(sizeof(F) / 4)>(&w.row[j][lane]) * value;
    }
};

// Source of the weights of n lanes: none, or blocks of normalized importance.
struct NoImportance {
    template <int rows> SPRAT_INLINED EqualWeights lanes(size_t, int) const { return {}; }
};
struct Importance {
    const float *at;

    template <int rows> SPRAT_INLINED GivenWeights<rows> lanes(size_t first, int n) const {
        GivenWeights<rows> found;
        for (int lane = 0; lane < kLanes; ++lane)
            for (int j = 0; j < rows; ++j)
                found.w.row[j][lane] = lane < n ? at[first + size_t(lane * rows + j)] : 1.f;
        return found;
    }
};

// pack and pack_weighted of a format whose search<W>(weights, importance, packed, n) takes either.
template <class Blocks> struct Searched {
    template <int W> SPRAT_INLINE void pack(const float *weights, uint8_t *packed, size_t n) {
        Blocks::template search<W>(weights, NoImportance{}, packed, n);
    }
    template <int W>
    SPRAT_INLINE void pack_weighted(const float *weights, const float *importance, uint8_t *packed,
                                    size_t n) {
        Blocks::template search<W>(weights, Importance{importance}, packed, n);
    }
};

constexpr int kRefinements = 3;  // of a weighted search

template <int W> struct Affine {
    Floats<W> s, m;
};

// affine_fit: s and m for the lanes from `lane` on, x ~ s * q - m; m may be negative if kSigned.
template <int W, bool kSigned = false, int rows, class Weights>
SPRAT_INLINE Affine<W> affine_fit(const LaneBlock<rows> &x, const Weights &weights, int lane,
                                  float largest) {
    using F = Floats<W>;
    const auto row = [&](int j) SPRAT_INLINED { return load<W>(&x.row[j][lane]); };
    const auto weigh = [&](F value, int j) SPRAT_INLINED { return weights.weigh(value, j, lane); };
    F low = row(0), high = low, total{}, n{};
    for (int j = 0; j < rows; ++j) {
        low = smaller(low, row(j));
        high = larger(high, row(j));
        total += weigh(row(j), j);
        n += weigh(splat<W>(1.f), j);
    }
    if constexpr (!kSigned) low = smaller(low, F{});
    const F inverse = reciprocal(high - low);
    Affine<W> best{};
    F error = splat<W>(__builtin_inff());
    F q[rows];

    const auto keep_better = [&]() SPRAT_INLINED {
        F sum_q{}, sum_qq{}, sum_xq{}, new_error{};
        for (int j = 0; j < rows; ++j) {
            sum_q += weigh(q[j], j);
            sum_qq += weigh(q[j] * q[j], j);
            sum_xq += weigh(row(j) * q[j], j);
        }
        const F square = n * sum_qq, difference = square - sum_q * sum_q;
        const float rounding = Weights::kGiven ? 0x1p-18f : 0.f;
        const F determinant = difference > rounding * square ? difference : F{};
        F s = over(n * sum_xq - total * sum_q, determinant);
        F m = determinant != 0.f ? over(sum_q * sum_xq - total * sum_qq, determinant) : total / -n;
        if constexpr (!kSigned) {
            s = m < 0.f ? over(sum_xq, sum_qq) : s;
            m = m < 0.f ? F{} : m;
        }
        s = larger(s, F{});
        for (int j = 0; j < rows; ++j) {
            const F off = (s * q[j] - m) - row(j);
            new_error += weigh(off * off, j);
        }
        best.s = new_error < error ? s : best.s;
        best.m = new_error < error ? m : best.m;
        error = new_error < error ? new_error : error;
    };

    for (int start = -4; start <= (Weights::kGiven ? 12 : 4); ++start) {
        const F step = (largest + float(start) / 4) * inverse;
        for (int j = 0; j < rows; ++j) q[j] = nearest_whole((row(j) - low) * step, 0.f, largest);
        keep_better();
    }
    for (int i = 0; i < (Weights::kGiven ? kRefinements : 1); ++i) {
        const F per_scale = reciprocal(best.s);
        for (int j = 0; j < rows; ++j)
            q[j] = nearest_whole((row(j) + best.m) * per_scale, 0.f, largest);
        keep_better();
    }
    return best;
}

// scale_fit: s for the lanes from `lane` on, x ~ s * nearest(x / s); n starts, the k-th given by
// start(k).
template <int W, int rows, class Weights, class Start, class Nearest>
SPRAT_INLINE Floats<W> scale_fit(const LaneBlock<rows> &x, const Weights &weights, int lane, int n,
                                 Start start, Nearest nearest) {
    using F = Floats<W>;
    const auto row = [&](int j) SPRAT_INLINED { return load<W>(&x.row[j][lane]); };
    F extreme{};
    for (int j = 0; j < rows; ++j)
        extreme = magnitude(row(j)) > magnitude(extreme) ? row(j) : extreme;
    const F inverse = reciprocal(extreme);
    F s{}, gain{};
    const auto try_step = [&](F step) SPRAT_INLINED {
        F product{}, squares{};
        for (int j = 0; j < rows; ++j) {
            const F q = nearest(row(j) * step);
            product += weights.weigh(row(j) * q, j, lane);
            squares += weights.weigh(q * q, j, lane);
        }
        const F new_s = over(product, squares), new_gain = product * new_s;
        s = new_gain > gain ? new_s : s;
        gain = new_gain > gain ? new_gain : gain;
    };
    for (int k = 0; k < n; ++k) try_step(start(k) * inverse);
    for (int i = 0; i < (Weights::kGiven ? kRefinements : 0); ++i) try_step(reciprocal(s));
    return s;
}

}  // namespace sprat
