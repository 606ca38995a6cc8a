// Super-blocks whose sub-blocks have a quantized scale and a quantized minimum: the search of
// quant/formats/shared/affine_super_blocks.py, with the same float32 operations in the same order.
#pragma once

#include "quant/native/codecs/super_blocks.hpp"

namespace sprat {

// kLanes sub-blocks of `rows` weights, lane by lane: 256 / rows of them to a super-block.
template <int rows> struct SuperBlocks {
    static constexpr int kSub = 256 / rows, kSupers = kLanes / kSub;
    alignas(64) float d[kLanes], dmin[kLanes];  // the same in all lanes of a super-block
    alignas(64) float sc[kLanes], m[kLanes];
    alignas(64) float error[kLanes], sum_q[kLanes], sum_qq[kLanes], sum_xq[kLanes], sum_x[kLanes];
    alignas(64) float n[kLanes];  // sums of the weights of errors
    LaneBlock<rows> codes;
};

// _round_scales: sc and m near s / d and m / dmin with the smallest error, and the sums that _refit
// needs.
template <class Codes, int W, int rows, class Weights>
SPRAT_INLINE void round_scales(const LaneBlock<rows> &x, const Weights &weights, const float *s,
                               const float *m, int lane, SuperBlocks<rows> &fit) {
    constexpr float largest = Codes::kLargest, top = Codes::kLargestScale;
    using F = Floats<W>;
    const auto row = [&](int j) SPRAT_INLINED { return load<W>(&x.row[j][lane]); };
    const F d = load<W>(fit.d + lane), dmin = load<W>(fit.dmin + lane);
    const F centre_sc = nearest_whole(load<W>(s + lane) * reciprocal(d), 0.f, top);
    const F centre_m = nearest_whole(load<W>(m + lane) * reciprocal(dmin), 0.f, top);
    F best_sc = centre_sc, best_m = centre_m, error = splat<W>(__builtin_inff());
    const auto code = [&](int j, F offset, F per_scale) SPRAT_INLINED {
        return nearest_whole((row(j) + offset) * per_scale, 0.f, largest);
    };
    for (int sc_step : kNeighbours)
        for (int m_step : kNeighbours) {
            const F sc = smaller(larger(centre_sc + float(sc_step), F{}), splat<W>(top));
            const F minimum = smaller(larger(centre_m + float(m_step), F{}), splat<W>(top));
            const F scale = d * sc, offset = dmin * minimum, per_scale = reciprocal(scale);
            F new_error{};
            for (int j = 0; j < rows; ++j) {
                const F difference = (scale * code(j, offset, per_scale) - offset) - row(j);
                new_error += weights.weigh(difference * difference, j, lane);
            }
            best_sc = new_error < error ? sc : best_sc;
            best_m = new_error < error ? minimum : best_m;
            error = new_error < error ? new_error : error;
        }
    const F offset = dmin * best_m, per_scale = reciprocal(d * best_sc);
    const auto weigh = [&](F value, int j) SPRAT_INLINED { return weights.weigh(value, j, lane); };
    F sum_q{}, sum_qq{}, sum_xq{}, sum_x{}, n{};
    for (int j = 0; j < rows; ++j) {
        const F q = code(j, offset, per_scale);
        store<W>(&fit.codes.row[j][lane], q);
        sum_q += weigh(q, j);
        sum_qq += weigh(q * q, j);
        sum_xq += weigh(row(j) * q, j);
        sum_x += weigh(row(j), j);
        n += weigh(splat<W>(1.f), j);
    }
    store<W>(fit.sc + lane, best_sc);
    store<W>(fit.m + lane, best_m);
    store<W>(fit.error + lane, error);
    store<W>(fit.sum_q + lane, sum_q);
    store<W>(fit.sum_qq + lane, sum_qq);
    store<W>(fit.sum_xq + lane, sum_xq);
    store<W>(fit.sum_x + lane, sum_x);
    store<W>(fit.n + lane, n);
}

// _refit: d and dmin of the super-block whose first lane is given, fitted to its weights and codes.
template <int rows>
SPRAT_INLINE void refit(const SuperBlocks<rows> &fit, int first, float &d, float &dmin) {
    float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int i = first; i < first + fit.kSub; ++i) {
        const float sc = fit.sc[i], m = fit.m[i];
        aa += sc * sc * fit.sum_qq[i];
        ab += sc * m * fit.sum_q[i];
        bb += m * m * fit.n[i];
        xa += sc * fit.sum_xq[i];
        xb += m * fit.sum_x[i];
    }
    const float determinant = aa * bb - ab * ab;
    dmin = determinant > 0 ? (xa * ab - xb * aa) / determinant : aa > 0 ? 0.f : over(-xb, bb);
    d = determinant > 0 && !(dmin < 0) ? (xa * bb - xb * ab) / determinant : over(xa, aa);
    d = saturate_half(d > 0 ? d : 0.f);
    dmin = saturate_half(dmin > 0 ? dmin : 0.f);
}

// _fit_super_blocks: for each super-block, the better rounding is fits[better[i]].
template <class Codes, int W, int rows, class Weights>
SPRAT_INLINE void fit_super_blocks(const LaneBlock<rows> &x, const Weights &weights,
                                   SuperBlocks<rows> (&fits)[2], int *better) {
    constexpr int kSub = SuperBlocks<rows>::kSub;
    alignas(64) float s[kLanes], m[kLanes];
    for (int lane = 0; lane < kLanes; lane += W) {
        const Affine<W> found = affine_fit<W>(x, weights, lane, Codes::kLargest);
        store<W>(s + lane, found.s);
        store<W>(m + lane, found.m);
    }
    for (int first = 0; first < kLanes; first += kSub) {
        const auto unit = [&](const float *values) SPRAT_INLINED {
            return saturate_half(*std::max_element(values + first, values + first + kSub) /
                                 Codes::kLargestScale);
        };
        std::fill_n(fits[0].d + first, kSub, unit(s));
        std::fill_n(fits[0].dmin + first, kSub, unit(m));
    }
    for (int lane = 0; lane < kLanes; lane += W)
        round_scales<Codes, W>(x, weights, s, m, lane, fits[0]);
    for (int first = 0; first < kLanes; first += kSub) {
        float d, dmin;
        refit(fits[0], first, d, dmin);
        std::fill_n(fits[1].d + first, kSub, d);
        std::fill_n(fits[1].dmin + first, kSub, dmin);
    }
    for (int lane = 0; lane < kLanes; lane += W)
        round_scales<Codes, W>(x, weights, s, m, lane, fits[1]);
    const auto sum = [](const float *values) SPRAT_INLINED {
        float total = 0;
        for (int i = 0; i < kSub; ++i) total += values[i];
        return total;
    };
    for (int i = 0; i < SuperBlocks<rows>::kSupers; ++i)
        better[i] = sum(fits[1].error + i * kSub) < sum(fits[0].error + i * kSub);
}

}  // namespace sprat
