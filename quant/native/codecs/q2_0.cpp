// Q2_0: blocks of 64 2-bit codes and a scale; see quant/formats/q2_0.py.
#include "quant/native/blocks.hpp"

namespace sprat {
namespace {

struct Levels {
    static constexpr int kStarts = 52;

    SPRAT_INLINE float start(int k) { return k < 26 ? float(k + 4) / -8 : float(k - 22) / 8; }
    template <class F> SPRAT_INLINE F nearest(F scaled) { return nearest_whole(scaled, -1.f, 2.f); }
    template <class F> SPRAT_INLINE F code(F scaled) { return nearest(scaled) + 1.f; }
};

struct Blocks : Searched<Blocks> {  // d, qs
    static constexpr size_t block_bytes = 2 + 16;

    template <int W, class Importance>
    SPRAT_INLINE void search(const float *weights, Importance importance, uint8_t *packed,
                             size_t n) {
        const auto write = [&](size_t block, float d, const int *codes) SPRAT_INLINED {
            uint8_t *to = packed + block_bytes * block;
            store_half(to, d);
            for (int j = 0; j < 16; ++j, codes += 4)
                to[2 + j] = uint8_t(codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6);
        };
        search_blocks<Levels, 64, W>(weights, importance, n, write);
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, weights += 64, packed += block_bytes) {
            const float d = load_half(packed);
            for (int j = 0; j < 64; ++j)
                weights[j] = float((packed[2 + j / 4] >> j % 4 * 2 & 3) - 1) * d;
        }
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(Q2_0, Blocks)

}  // namespace sprat
