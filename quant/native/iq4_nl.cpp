// IQ4_NL: four-bit codes of sixteen uneven levels; see quant/formats/iq4_nl.py.
#include "quant/native/fit.hpp"

namespace sprat {
namespace {

constexpr int kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                             1,    13,   25,  38,  53,  69,  89,  113};

// The sum of added(i) over the midpoints i between neighbouring levels that lie below `scaled`. All
// terms are integers, so that their order does not matter.
template <class F, class Added> SPRAT_INLINE F passed(F scaled, float first, const Added &added) {
    const F twice = 2.f * scaled;
    F sum = F{} + first;
    for (int i = 0; i < 15; ++i)
        sum += twice > float(kLevels[i] + kLevels[i + 1]) ? F{} + added(i) : F{};
    return sum;
}

template <class F> SPRAT_INLINE F nearest_level(F scaled) {
    const auto rise = [](int i) SPRAT_INLINED { return float(kLevels[i + 1] - kLevels[i]); };
    return passed(scaled, float(kLevels[0]), rise);
}

template <class F> SPRAT_INLINE F nearest_code(F scaled) {
    return passed(scaled, 0.f, [](int) SPRAT_INLINED { return 1.f; });
}

struct Blocks {  // d, qs
    static constexpr size_t block_bytes = 2 + 16;

    template <int W> SPRAT_INLINE void pack(const float *weights, uint8_t *packed, size_t n) {
        for (size_t done = 0; done < n; done += kLanes)
            pack_lanes<W>(weights + 32 * done, packed + block_bytes * done,
                          int(std::min<size_t>(n - done, kLanes)));
    }

    template <int W> SPRAT_INLINE void pack_lanes(const float *weights, uint8_t *packed, int n) {
        LaneBlock<32> x, codes;
        float d[kLanes];
        to_lanes(weights, n, x);
        const auto start = [](int k) SPRAT_INLINED {
            return k < 9 ? -127.f + 5 * (k - 4) : 113.f + 5 * (k - 13);
        };
        const auto level = [](Floats<W> scaled) SPRAT_INLINED { return nearest_level(scaled); };
        for (int lane = 0; lane < kLanes; lane += W) {
            store<W>(d + lane, scale_fit<W>(x, lane, 18, start, level));
            for (int i = lane; i < lane + W; ++i) d[i] = saturate_half(d[i]);
            const Floats<W> per_scale = reciprocal(load<W>(d + lane));
            for (int j = 0; j < 32; ++j)
                store<W>(&codes.row[j][lane], nearest_code(load<W>(&x.row[j][lane]) * per_scale));
        }
        for (int lane = 0; lane < n; ++lane, packed += block_bytes) {
            store_half(packed, d[lane]);
            for (int j = 0; j < 16; ++j)
                packed[2 + j] =
                    uint8_t(int(codes.row[j][lane]) | int(codes.row[j + 16][lane]) << 4);
        }
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, weights += 32, packed += block_bytes) {
            const float d = load_half(packed);
            for (int j = 0; j < 16; ++j) {
                weights[j] = d * float(kLevels[packed[2 + j] & 15]);
                weights[j + 16] = d * float(kLevels[packed[2 + j] >> 4]);
            }
        }
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(IQ4_NL, Blocks)

}  // namespace sprat
