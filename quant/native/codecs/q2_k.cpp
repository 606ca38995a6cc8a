// Q2_K: super-blocks of sixteen sub-blocks of 2-bit codes; see quant/formats/q2_k.py.
#include "quant/native/codecs/affine_super_blocks.hpp"

namespace sprat {
namespace {

struct Codes {
    static constexpr float kLargest = 3, kLargestScale = 15;
};

struct Blocks : Searched<Blocks> {  // scales[16], qs[64], d, dmin
    static constexpr size_t block_bytes = 16 + 64 + 2 + 2;

    template <int W, class Importance>
    SPRAT_INLINE void search(const float *weights, Importance importance, uint8_t *packed,
                             size_t n) {
        for (size_t i = 0; i < n; ++i, packed += block_bytes) {
            LaneBlock<16> x;
            SuperBlocks<16> fits[2];
            int better[1];
            to_lanes(weights + 256 * i, kLanes, x);
            const auto w = importance.template lanes<16>(256 * i, kLanes);
            fit_super_blocks<Codes, W>(x, w, fits, better);
            write(fits[better[0]], packed);
        }
    }

    SPRAT_INLINE void write(const SuperBlocks<16> &fit, uint8_t *packed) {
        std::memset(packed, 0, block_bytes);
        for (int i = 0; i < 16; ++i) {
            packed[i] = uint8_t(int(fit.sc[i]) | int(fit.m[i]) << 4);
            uint8_t *qs = packed + 16 + i / 8 * 32 + i % 2 * 16;
            for (int j = 0; j < 16; ++j)
                qs[j] |= uint8_t(int(fit.codes.row[j][i]) << i / 2 % 4 * 2);
        }
        store_half(packed + 80, fit.d[0]);
        store_half(packed + 82, fit.dmin[0]);
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, packed += block_bytes) {
            const float d = load_half(packed + 80), dmin = load_half(packed + 82);
            for (int i = 0; i < 16; ++i, weights += 16) {
                const float scale = d * float(packed[i] & 15),
                            minimum = dmin * float(packed[i] >> 4);
                const uint8_t *qs = packed + 16 + i / 8 * 32 + i % 2 * 16;
                for (int j = 0; j < 16; ++j)
                    weights[j] = scale * float(qs[j] >> i / 2 % 4 * 2 & 3) - minimum;
            }
        }
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(Q2_K, Blocks)

}  // namespace sprat
