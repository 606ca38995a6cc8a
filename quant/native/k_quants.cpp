// Q4_K, Q5_K, Q6_K: super-blocks of 256 with quantized scales; see quant/formats/k_quants.py.
#include "quant/native/fit.hpp"

namespace sprat {
namespace {

constexpr int kNeighbours[3] = {0, -1, 1};
constexpr int kSuper = 8;  // lanes of a super-block of Q4_K or Q5_K

// Two super-blocks of eight sub-blocks each, lane by lane.
struct SuperBlocks {
    alignas(64) float d[kLanes], dmin[kLanes];  // the same in all lanes of a super-block
    alignas(64) float sc[kLanes], m[kLanes];
    alignas(64) float error[kLanes], sum_q[kLanes], sum_qq[kLanes], sum_xq[kLanes], sum_x[kLanes];
    LaneBlock<32> codes;
};

// _round_scales: sc and m near s / d and m / dmin with the smallest error, and the sums that _refit
// needs.
template <int W>
SPRAT_INLINE void round_scales(const LaneBlock<32> &x, const float *s, const float *m,
                               float largest, int lane, SuperBlocks &fit) {
    using F = Floats<W>;
    const auto row = [&](int j) SPRAT_INLINED { return load<W>(&x.row[j][lane]); };
    const F d = load<W>(fit.d + lane), dmin = load<W>(fit.dmin + lane);
    const F centre_sc = nearest_whole(load<W>(s + lane) * reciprocal(d), 0.f, 63.f);
    const F centre_m = nearest_whole(load<W>(m + lane) * reciprocal(dmin), 0.f, 63.f);
    F best_sc = centre_sc, best_m = centre_m, error = splat<W>(__builtin_inff());
    const auto code = [&](int j, F offset, F per_scale) SPRAT_INLINED {
        return nearest_whole((row(j) + offset) * per_scale, 0.f, largest);
    };
    for (int sc_step : kNeighbours)
        for (int m_step : kNeighbours) {
            const F sc = smaller(larger(centre_sc + float(sc_step), F{}), splat<W>(63.f));
            const F minimum = smaller(larger(centre_m + float(m_step), F{}), splat<W>(63.f));
            const F scale = d * sc, offset = dmin * minimum, per_scale = reciprocal(scale);
            F new_error{};
            for (int j = 0; j < 32; ++j) {
                const F difference = (scale * code(j, offset, per_scale) - offset) - row(j);
                new_error += difference * difference;
            }
            best_sc = new_error < error ? sc : best_sc;
            best_m = new_error < error ? minimum : best_m;
            error = new_error < error ? new_error : error;
        }
    const F offset = dmin * best_m, per_scale = reciprocal(d * best_sc);
    F sum_q{}, sum_qq{}, sum_xq{}, sum_x{};
    for (int j = 0; j < 32; ++j) {
        const F q = code(j, offset, per_scale);
        store<W>(&fit.codes.row[j][lane], q);
        sum_q += q;
        sum_qq += q * q;
        sum_xq += row(j) * q;
        sum_x += row(j);
    }
    store<W>(fit.sc + lane, best_sc);
    store<W>(fit.m + lane, best_m);
    store<W>(fit.error + lane, error);
    store<W>(fit.sum_q + lane, sum_q);
    store<W>(fit.sum_qq + lane, sum_qq);
    store<W>(fit.sum_xq + lane, sum_xq);
    store<W>(fit.sum_x + lane, sum_x);
}

// _refit: d and dmin of the super-block whose first lane is given, fitted to its weights and codes.
SPRAT_INLINE void refit(const SuperBlocks &fit, int first, float &d, float &dmin) {
    float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int i = first; i < first + kSuper; ++i) {
        const float sc = fit.sc[i], m = fit.m[i];
        aa += sc * sc * fit.sum_qq[i];
        ab += sc * m * fit.sum_q[i];
        bb += m * m * 32.f;
        xa += sc * fit.sum_xq[i];
        xb += m * fit.sum_x[i];
    }
    const float determinant = aa * bb - ab * ab;
    dmin = determinant > 0 ? (xa * ab - xb * aa) / determinant : aa > 0 ? 0.f : over(-xb, bb);
    d = determinant > 0 && !(dmin < 0) ? (xa * bb - xb * ab) / determinant : over(xa, aa);
    d = saturate_half(d > 0 ? d : 0.f);
    dmin = saturate_half(dmin > 0 ? dmin : 0.f);
}

SPRAT_INLINE float sum(const float *values) {
    float total = 0;
    for (int i = 0; i < kSuper; ++i) total += values[i];
    return total;
}

SPRAT_INLINE void fill(float *values, float value) { std::fill(values, values + kSuper, value); }

// _fit_super_blocks: for each of the two super-blocks, the better rounding is fits[better[i]].
template <int W>
SPRAT_INLINE void fit_super_blocks(const LaneBlock<32> &x, float largest, SuperBlocks (&fits)[2],
                                   int (&better)[2]) {
    alignas(64) float s[kLanes], m[kLanes];
    for (int lane = 0; lane < kLanes; lane += W) {
        const Affine<W> found = affine_fit<W>(x, lane, largest);
        store<W>(s + lane, found.s);
        store<W>(m + lane, found.m);
    }
    for (int first = 0; first < kLanes; first += kSuper) {
        fill(fits[0].d + first,
             saturate_half(*std::max_element(s + first, s + first + kSuper) / 63.f));
        fill(fits[0].dmin + first,
             saturate_half(*std::max_element(m + first, m + first + kSuper) / 63.f));
    }
    for (int lane = 0; lane < kLanes; lane += W) round_scales<W>(x, s, m, largest, lane, fits[0]);
    for (int first = 0; first < kLanes; first += kSuper) {
        float d, dmin;
        refit(fits[0], first, d, dmin);
        fill(fits[1].d + first, d);
        fill(fits[1].dmin + first, dmin);
    }
    for (int lane = 0; lane < kLanes; lane += W) round_scales<W>(x, s, m, largest, lane, fits[1]);
    for (int i = 0; i < 2; ++i)
        better[i] = sum(fits[1].error + i * kSuper) < sum(fits[0].error + i * kSuper);
}

// d, dmin and the six-bit scales and minima; _SuperBlocks.header draws the layout.
SPRAT_INLINE void store_header(const SuperBlocks &fit, int first, uint8_t *packed) {
    store_half(packed, fit.d[first]);
    store_half(packed + 2, fit.dmin[first]);
    const float *sc = fit.sc + first, *m = fit.m + first;
    for (int j = 0; j < 4; ++j) {
        packed[4 + j] = uint8_t(int(sc[j]) | int(sc[j + 4]) >> 4 << 6);
        packed[8 + j] = uint8_t(int(m[j]) | int(m[j + 4]) >> 4 << 6);
        packed[12 + j] = uint8_t((int(sc[j + 4]) & 15) | int(m[j + 4]) << 4);
    }
}

struct Scales {
    float scale[kSuper], minimum[kSuper];
};

SPRAT_INLINE Scales load_header(const uint8_t *packed) {
    Scales found;
    const float d = load_half(packed), dmin = load_half(packed + 2);
    for (int j = 0; j < 4; ++j) {
        const int sc = packed[4 + j], m = packed[8 + j], low = packed[12 + j];
        found.scale[j] = d * float(sc & 63);
        found.minimum[j] = dmin * float(m & 63);
        found.scale[j + 4] = d * float((low & 15) | sc >> 6 << 4);
        found.minimum[j + 4] = dmin * float(low >> 4 | m >> 6 << 4);
    }
    return found;
}

template <bool five>
struct WithMinima {  // Q4_K, Q5_K: d, dmin, twelve bytes of sc and m, qh of Q5_K, qs
    static constexpr size_t qs = 16 + (five ? 32 : 0), block_bytes = qs + 128;

    template <int W> SPRAT_INLINE void pack(const float *weights, uint8_t *packed, size_t n) {
        for (size_t done = 0; done < n; done += 2)
            pack_lanes<W>(weights + 256 * done, packed + block_bytes * done, n - done > 1 ? 2 : 1);
    }

    template <int W> SPRAT_INLINE void pack_lanes(const float *weights, uint8_t *packed, int n) {
        LaneBlock<32> x;
        SuperBlocks fits[2];
        int better[2];
        to_lanes(weights, n * kSuper, x);
        fit_super_blocks<W>(x, five ? 31.f : 15.f, fits, better);
        for (int i = 0; i < n; ++i, packed += block_bytes) {
            const SuperBlocks &fit = fits[better[i]];
            store_header(fit, i * kSuper, packed);
            for (int j = 0; j < 32; ++j) pack_row(fit.codes.row[j] + i * kSuper, packed + j);
        }
    }

    // The codes of one row, from eight sub-blocks.
    SPRAT_INLINE void pack_row(const float *codes, uint8_t *packed) {
        for (int pair = 0; pair < 4; ++pair)
            packed[qs + 32 * size_t(pair)] =
                uint8_t((int(codes[2 * pair]) & 15) | (int(codes[2 * pair + 1]) & 15) << 4);
        if constexpr (five) {
            int fifth = 0;
            for (int b = 0; b < kSuper; ++b) fifth |= int(codes[b]) >> 4 << b;
            packed[16] = uint8_t(fifth);
        }
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, weights += 256, packed += block_bytes) {
            const Scales found = load_header(packed);
            for (int b = 0; b < kSuper; ++b)
                for (int j = 0; j < 32; ++j) {
                    int q = packed[qs + 32 * size_t(b / 2) + size_t(j)] >> 4 * (b % 2) & 15;
                    if constexpr (five) q |= (packed[16 + j] >> b & 1) << 4;
                    weights[32 * b + j] = found.scale[b] * float(q) - found.minimum[b];
                }
        }
    }
};

struct Blocks6 {  // Q6_K: ql, qh, sixteen int8 scales, d
    static constexpr size_t block_bytes = 128 + 64 + 16 + 2;

    template <int W> SPRAT_INLINE void pack(const float *weights, uint8_t *packed, size_t n) {
        for (; n; --n, weights += 256, packed += block_bytes) pack_block<W>(weights, packed);
    }

    template <int W> SPRAT_INLINE void pack_block(const float *weights, uint8_t *packed) {
        LaneBlock<16> x, levels;
        alignas(64) float s[kLanes], sc[kLanes];
        to_lanes(weights, kLanes, x);
        const auto start = [](int k) SPRAT_INLINED { return -35.f + float(k) / 2; };
        const auto level = [](Floats<W> scaled) SPRAT_INLINED { return level_of(scaled); };
        for (int lane = 0; lane < kLanes; lane += W)
            store<W>(s + lane, scale_fit<W>(x, lane, 13, start, level));
        float extreme = s[0];
        for (float value : s)
            if (magnitude(value) > magnitude(extreme)) extreme = value;
        const float d = saturate_half(extreme / -128.f);
        for (int lane = 0; lane < kLanes; lane += W) round_scales<W>(x, lane, d, s, sc, levels);
        store_block(levels, sc, d, packed);
    }

    // The scales near s / d with the smallest error, and their levels.
    template <int W>
    SPRAT_INLINE void round_scales(const LaneBlock<16> &x, int lane, float d, const float *s,
                                   float *sc, LaneBlock<16> &levels) {
        using F = Floats<W>;
        const auto row = [&](int j) SPRAT_INLINED { return load<W>(&x.row[j][lane]); };
        const F centre = nearest_whole(load<W>(s + lane) * reciprocal(splat<W>(d)), -128.f, 127.f);
        F best = centre, error = splat<W>(__builtin_inff());
        for (int step : kNeighbours) {
            const F number =
                smaller(larger(centre + float(step), splat<W>(-128.f)), splat<W>(127.f));
            const F scale = d * number, per_scale = reciprocal(scale);
            F new_error{};
            for (int j = 0; j < 16; ++j) {
                const F difference = scale * level_of(row(j) * per_scale) - row(j);
                new_error += difference * difference;
            }
            best = new_error < error ? number : best;
            error = new_error < error ? new_error : error;
        }
        store<W>(sc + lane, best);
        const F per_scale = reciprocal(d * best);
        for (int j = 0; j < 16; ++j) store<W>(&levels.row[j][lane], level_of(row(j) * per_scale));
    }

    template <class F> SPRAT_INLINE F level_of(F scaled) {
        return nearest_whole(scaled, -32.f, 31.f);
    }

    SPRAT_INLINE void store_block(const LaneBlock<16> &levels, const float *sc, float d,
                                  uint8_t *packed) {
        uint8_t codes[256];
        for (int lane = 0; lane < kLanes; ++lane)
            for (int j = 0; j < 16; ++j)
                codes[16 * lane + j] = uint8_t(int(levels.row[j][lane]) + 32);
        for (int half = 0; half < 2; ++half) {
            const uint8_t *q = codes + 128 * half;
            for (int j = 0; j < 64; ++j)
                packed[64 * half + j] = uint8_t((q[j] & 15) | (q[j + 64] & 15) << 4);
            for (int j = 0; j < 32; ++j)
                packed[128 + 32 * half + j] = uint8_t(q[j] >> 4 | q[j + 32] >> 4 << 2 |
                                                      q[j + 64] >> 4 << 4 | q[j + 96] >> 4 << 6);
        }
        for (int i = 0; i < kLanes; ++i) packed[192 + i] = uint8_t(int8_t(sc[i]));
        store_half(packed + 208, d);
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, weights += 256, packed += block_bytes) {
            const float d = load_half(packed + 208);
            float scale[kLanes];
            for (int i = 0; i < kLanes; ++i) scale[i] = d * float(int8_t(packed[192 + i]));
            for (int run = 0; run < 8; ++run) {  // 32 codes each, four runs a half
                const uint8_t *ql = packed + 64 * (run / 4) + 32 * (run % 2),
                              *qh = packed + 128 + 32 * (run / 4);
                const int low = run % 4 / 2 * 4, high = run % 4 * 2;
                for (int j = 0; j < 32; ++j) {
                    const int q = (ql[j] >> low & 15) | (qh[j] >> high & 3) << 4;
                    weights[32 * run + j] = scale[2 * run + j / 16] * float(q - 32);
                }
            }
        }
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(Q4_K, WithMinima<false>)
SPRAT_DEFINE_CODEC(Q5_K, WithMinima<true>)
SPRAT_DEFINE_CODEC(Q6_K, Blocks6)

}  // namespace sprat
