// IQ4_XS: super-blocks of eight sub-blocks of IQ4_NL's levels; see quant/formats/iq4_xs.py.
#include "quant/native/codecs/iq4_levels.hpp"
#include "quant/native/codecs/super_blocks.hpp"

namespace sprat {
namespace {

struct Levels : Iq4Levels {
    static constexpr int kSub = 8, kRounds = 3;
    static constexpr float kSmallest = -32;
};

struct Blocks : Searched<Blocks> {  // d, scales_h (16 bits), scales_l[4], qs[128]
    static constexpr size_t block_bytes = 2 + 2 + 4 + 128;

    template <int W, class Importance>
    SPRAT_INLINE void search(const float *weights, Importance importance, uint8_t *packed,
                             size_t n) {
        for (size_t done = 0; done < n; done += 2) {
            const int here = n - done > 1 ? 2 : 1;
            LaneBlock<32> x;
            ScaledLanes fit;
            uint8_t codes[32 * kLanes];
            to_lanes(weights + 256 * done, 8 * here, x);
            fit_scaled<Levels, W>(x, importance.template lanes<32>(256 * done, 8 * here), fit,
                                  codes);
            for (int i = 0; i < here; ++i)
                write(fit, 8 * i, codes + 256 * i, packed + block_bytes * (done + size_t(i)));
        }
    }

    SPRAT_INLINE void write(const ScaledLanes &fit, int first, const uint8_t *codes,
                            uint8_t *packed) {
        int high = 0;
        store_half(packed, fit.d[first]);
        std::memset(packed + 4, 0, 4);
        for (int b = 0; b < 8; ++b) {
            const int sc = int(fit.sc[first + b]) + 32;
            packed[4 + b / 2] |= uint8_t((sc & 15) << 4 * (b % 2));
            high |= sc >> 4 << 2 * b;
            for (int j = 0; j < 16; ++j)
                packed[8 + 16 * b + j] = uint8_t(codes[32 * b + j] | codes[32 * b + j + 16] << 4);
        }
        store16(packed + 2, uint16_t(high));
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, packed += block_bytes) {
            const float d = load_half(packed);
            const int high = load16(packed + 2);
            for (int b = 0; b < 8; ++b, weights += 32) {
                const int low = packed[4 + b / 2] >> 4 * (b % 2) & 15;
                const float scale = d * float((low | (high >> 2 * b & 3) << 4) - 32);
                const uint8_t *qs = packed + 8 + 16 * b;
                for (int j = 0; j < 16; ++j) {
                    weights[j] = scale * float(kIq4Levels[qs[j] & 15]);
                    weights[j + 16] = scale * float(kIq4Levels[qs[j] >> 4]);
                }
            }
        }
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(IQ4_XS, Blocks)

}  // namespace sprat
