// Super-blocks whose sub-blocks have a quantized scale and no minimum: the search of
// quant/formats/shared/super_blocks.py, with the same float32 operations in the same order.
#pragma once

#include "quant/native/fit.hpp"

namespace sprat {

constexpr int kNeighbours[3] = {0, -1, 1};

// kLanes lanes in super-blocks: d is the same in all lanes of one.
struct ScaledLanes {
    alignas(64) float d[kLanes], sc[kLanes];
};

// Levels has nearest(F), start(k), kStarts, kSmallest (the smallest integer scale), kRounds, and
// kSub, the lanes of a super-block.
template <class Levels, int rows, class Weights> struct ScaledFit {
    static constexpr int kSub = Levels::kSub;
    const LaneBlock<rows> &x;
    const Weights &weights;
    alignas(64) float s[kLanes], error[kLanes];

    template <int W> SPRAT_INLINED Floats<W> row(int j, int lane) const {
        return load<W>(&x.row[j][lane]);
    }

    // fit_scaled
    template <int W> SPRAT_INLINED void run(ScaledLanes &best) {
        for (int lane = 0; lane < kLanes; lane += W)
            store<W>(s + lane, scale_fit<W>(
                                   x, weights, lane, Levels::kStarts,
                                   [](int k) SPRAT_INLINED { return Levels::start(k); },
                                   [](Floats<W> v) SPRAT_INLINED { return Levels::nearest(v); }));
        for (int first = 0; first < kLanes; first += kSub) {
            float extreme = s[first];
            for (int i = first; i < first + kSub; ++i)
                if (magnitude(s[i]) > magnitude(extreme)) extreme = s[i];
            std::fill_n(best.d + first, kSub, saturate_half(extreme / Levels::kSmallest));
        }
        float least[kLanes / kSub];
        round_scales<W>(best);
        for (int i = 0; i < kLanes / kSub; ++i) least[i] = sum(error + i * kSub);
        ScaledLanes last = best;
        for (int round = 1; round < Levels::kRounds; ++round) {
            refit<W>(last);
            round_scales<W>(last);
            for (int i = 0; i < kLanes / kSub; ++i) {
                const float found = sum(error + i * kSub);
                if (!(found < least[i])) continue;
                least[i] = found;
                std::copy_n(last.d + i * kSub, kSub, best.d + i * kSub);
                std::copy_n(last.sc + i * kSub, kSub, best.sc + i * kSub);
            }
        }
    }

    // _round_scales: the integers near s / d with the smallest error.
    template <int W> SPRAT_INLINED void round_scales(ScaledLanes &fit) {
        using F = Floats<W>;
        constexpr float kLow = Levels::kSmallest, kHigh = -Levels::kSmallest - 1;
        for (int lane = 0; lane < kLanes; lane += W) {
            const F d = load<W>(fit.d + lane);
            const F center = nearest_whole(load<W>(s + lane) * reciprocal(d), kLow, kHigh);
            F best = center, least = splat<W>(__builtin_inff());
            for (int step : kNeighbours) {
                const F sc = smaller(larger(center + float(step), splat<W>(kLow)), splat<W>(kHigh));
                const F scale = d * sc, per_scale = reciprocal(scale);
                F found{};
                for (int j = 0; j < rows; ++j) {
                    const F x_j = row<W>(j, lane);
                    const F off = scale * Levels::nearest(x_j * per_scale) - x_j;
                    found += weights.weigh(off * off, j, lane);
                }
                best = found < least ? sc : best;
                least = found < least ? found : least;
            }
            store<W>(fit.sc + lane, best);
            store<W>(error + lane, least);
        }
    }

    // _refit: d for the integers and levels of `fit`.
    template <int W> SPRAT_INLINED void refit(ScaledLanes &fit) {
        alignas(64) float product[kLanes], square[kLanes];
        for (int lane = 0; lane < kLanes; lane += W) {
            const Floats<W> per_scale = reciprocal(load<W>(fit.d + lane) * load<W>(fit.sc + lane));
            Floats<W> xq{}, qq{};
            for (int j = 0; j < rows; ++j) {
                const Floats<W> q = Levels::nearest(row<W>(j, lane) * per_scale);
                xq += weights.weigh(row<W>(j, lane) * q, j, lane);
                qq += weights.weigh(q * q, j, lane);
            }
            store<W>(product + lane, xq);
            store<W>(square + lane, qq);
        }
        for (int first = 0; first < kLanes; first += kSub) {
            float above = 0, below = 0;
            for (int i = first; i < first + kSub; ++i) {
                above += fit.sc[i] * product[i];
                below += fit.sc[i] * fit.sc[i] * square[i];
            }
            std::fill_n(fit.d + first, kSub, saturate_half(over(above, below)));
        }
    }

    static SPRAT_INLINED float sum(const float *values) {
        float total = 0;
        for (int i = 0; i < kSub; ++i) total += values[i];
        return total;
    }
};

// The fit of all lanes, and their codes, Levels::code(x / scale): rows of a lane one after the
// other.
template <class Levels, int W, int rows, class Weights>
SPRAT_INLINE void fit_scaled(const LaneBlock<rows> &x, const Weights &weights, ScaledLanes &fit,
                             uint8_t *codes) {
    ScaledFit<Levels, rows, Weights>{x, weights, {}, {}}.template run<W>(fit);
    for (int lane = 0; lane < kLanes; lane += W) {
        const Floats<W> per_scale = reciprocal(load<W>(fit.d + lane) * load<W>(fit.sc + lane));
        for (int j = 0; j < rows; ++j) {
            alignas(64) float found[W];
            store<W>(found, Levels::code(load<W>(&x.row[j][lane]) * per_scale));
            for (int i = 0; i < W; ++i) codes[(lane + i) * rows + j] = uint8_t(int(found[i]));
        }
    }
}

// A format of super-blocks in sixteen lanes; Blocks::write(fit, codes, packed) stores one.
template <class Blocks, class Levels> struct SearchedInLanes : Searched<Blocks> {
    template <int W, class Importance>
    SPRAT_INLINE void search(const float *weights, Importance importance, uint8_t *packed,
                             size_t n) {
        for (size_t i = 0; i < n; ++i, packed += Blocks::block_bytes) {
            LaneBlock<16> x;
            ScaledLanes fit;
            uint8_t codes[256];
            to_lanes(weights + 256 * i, kLanes, x);
            fit_scaled<Levels, W>(x, importance.template lanes<16>(256 * i, kLanes), fit, codes);
            Blocks::write(fit, codes, packed);
        }
    }
};

}  // namespace sprat
