// Q4_K, Q5_K, Q6_K: super-blocks of 256 with quantized scales; see quant/formats/k_quants.py.
#include "quant/native/codecs/affine_super_blocks.hpp"

namespace sprat {
namespace {

constexpr int kSuper = 8;  // lanes of a super-block of Q4_K or Q5_K

// d, dmin and the six-bit scales and minima; _SuperBlocks.header draws the layout.
SPRAT_INLINE void store_header(const SuperBlocks<32> &fit, int first, uint8_t *packed) {
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

// Q4_K, Q5_K: d, dmin, twelve bytes of sc and m, qh of Q5_K, qs
template <bool five> struct WithMinima : Searched<WithMinima<five>> {
    static constexpr size_t qs = 16 + (five ? 32 : 0), block_bytes = qs + 128;
    struct Codes {
        static constexpr float kLargest = five ? 31 : 15, kLargestScale = 63;
    };

    template <int W, class Importance>
    SPRAT_INLINE void search(const float *weights, Importance importance, uint8_t *packed,
                             size_t n) {
        for (size_t done = 0; done < n; done += 2)
            search_lanes<W>(weights, importance, done, packed + block_bytes * done,
                            n - done > 1 ? 2 : 1);
    }

    template <int W, class Importance>
    SPRAT_INLINE void search_lanes(const float *weights, Importance importance, size_t done,
                                   uint8_t *packed, int n) {
        LaneBlock<32> x;
        SuperBlocks<32> fits[2];
        int better[2];
        to_lanes(weights + 256 * done, n * kSuper, x);
        const auto w = importance.template lanes<32>(256 * done, n * kSuper);
        fit_super_blocks<Codes, W>(x, w, fits, better);
        for (int i = 0; i < n; ++i, packed += block_bytes) {
            const SuperBlocks<32> &fit = fits[better[i]];
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

struct Levels6 {
    static constexpr int kSub = 16, kStarts = 13, kRounds = 1;
    static constexpr float kSmallest = -128;

    SPRAT_INLINE float start(int k) { return -35.f + float(k) / 2; }
    template <class F> SPRAT_INLINE F nearest(F scaled) {
        return nearest_whole(scaled, -32.f, 31.f);
    }
    template <class F> SPRAT_INLINE F code(F scaled) { return nearest(scaled) + 32.f; }
};

struct Blocks6 : SearchedInLanes<Blocks6, Levels6> {  // Q6_K: ql, qh, sixteen int8 scales, d
    static constexpr size_t block_bytes = 128 + 64 + 16 + 2;

    SPRAT_INLINE void write(const ScaledLanes &fit, const uint8_t *codes, uint8_t *packed) {
        for (int half = 0; half < 2; ++half) {
            const uint8_t *q = codes + 128 * half;
            for (int j = 0; j < 64; ++j)
                packed[64 * half + j] = uint8_t((q[j] & 15) | (q[j + 64] & 15) << 4);
            for (int j = 0; j < 32; ++j)
                packed[128 + 32 * half + j] = uint8_t(q[j] >> 4 | q[j + 32] >> 4 << 2 |
                                                      q[j + 64] >> 4 << 4 | q[j + 96] >> 4 << 6);
        }
        for (int i = 0; i < kLanes; ++i) packed[192 + i] = uint8_t(int8_t(fit.sc[i]));
        store_half(packed + 208, fit.d[0]);
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
