// IQ4_NL: four-bit codes of sixteen uneven levels; see quant/formats/iq4_nl.py.
#include "quant/native/blocks.hpp"
#include "quant/native/codecs/iq4_levels.hpp"

namespace sprat {
namespace {

struct Blocks : Searched<Blocks> {  // d, qs
    static constexpr size_t block_bytes = 2 + 16;

    template <int W, class Importance>
    SPRAT_INLINE void search(const float *weights, Importance importance, uint8_t *packed,
                             size_t n) {
        const auto write = [&](size_t block, float d, const int *codes) SPRAT_INLINED {
            uint8_t *to = packed + block_bytes * block;
            store_half(to, d);
            for (int j = 0; j < 16; ++j) to[2 + j] = uint8_t(codes[j] | codes[j + 16] << 4);
        };
        search_blocks<Iq4Levels, 32, W>(weights, importance, n, write);
    }

    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (; n; --n, weights += 32, packed += block_bytes) {
            const float d = load_half(packed);
            for (int j = 0; j < 16; ++j) {
                weights[j] = d * float(kIq4Levels[packed[2 + j] & 15]);
                weights[j + 16] = d * float(kIq4Levels[packed[2 + j] >> 4]);
            }
        }
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(IQ4_NL, Blocks)

}  // namespace sprat
