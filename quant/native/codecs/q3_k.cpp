// Q3_K: super-blocks of sixteen sub-blocks of 3-bit codes; see quant/formats/q3_k.py.
#include "quant/native/codecs/super_blocks.hpp"

namespace sprat {
namespace {

struct Levels {
    static constexpr int kSub = 16, kStarts = 15, kRounds = 3;
    static constexpr float kSmallest = -32;

    SPRAT_INLINE float start(int k) {
        return k < 9 ? -(4.f + float(k - 5) / 4) : 4.f + float(k - 14) / 4;
    }
    template <class F> SPRAT_INLINE F nearest(F scaled) { return nearest_whole(scaled, -4.f, 3.f); }
    template <class F> SPRAT_INLINE F code(F scaled) { return nearest(scaled) + 4.f; }
};

struct Blocks : SearchedInLanes<Blocks, Levels> {  // hmask[32], qs[64], scales[12], d
    static constexpr size_t block_bytes = 32 + 64 + 12 + 2;

    SPRAT_INLINE void write(const ScaledLanes &fit, const uint8_t *codes, uint8_t *packed) {
        std::memset(packed, 0, block_bytes);
        for (int run = 0; run < 8; ++run)
            for (int j = 0; j < 32; ++j) {
                const int q = codes[32 * run + j];
                packed[j] |= uint8_t(q >> 2 << run);
                packed[32 + 32 * (run / 4) + j] |= uint8_t((q & 3) << 2 * (run % 4));
            }
        for (int i = 0; i < 16; ++i) {
            const int sc = int(fit.sc[i]) + 32;
            packed[96 + i % 8] |= uint8_t((sc & 15) << i / 8 * 4);
            packed[104 + i % 4] |= uint8_t(sc >> 4 << i / 4 * 2);
        }
        store_half(packed + 108, fit.d[0]);
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, packed += block_bytes) {
            const float d = load_half(packed + 108);
            for (int i = 0; i < 16; ++i, weights += 16) {
                const int low = packed[96 + i % 8] >> i / 8 * 4 & 15;
                const int sc = low | (packed[104 + i % 4] >> i / 4 * 2 & 3) << 4;
                const float scale = d * float(sc - 32);
                const uint8_t *hmask = packed + i % 2 * 16,
                              *qs = packed + 32 + i / 8 * 32 + i % 2 * 16;
                for (int j = 0; j < 16; ++j) {
                    const int q = (qs[j] >> i / 2 % 4 * 2 & 3) | (hmask[j] >> i / 2 & 1) << 2;
                    weights[j] = scale * float(q - 4);
                }
            }
        }
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(Q3_K, Blocks)

}  // namespace sprat
