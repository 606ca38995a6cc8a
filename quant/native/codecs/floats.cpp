// F32, F16, BF16: one weight a block.
#include "quant/native/half.hpp"

namespace sprat {
namespace {

struct Float32 {
    static constexpr size_t block_bytes = 4;

    template <int> SPRAT_INLINE void pack(const float *weights, uint8_t *packed, size_t n) {
        std::memcpy(packed, weights, 4 * n);
    }
    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        std::memcpy(weights, packed, 4 * n);
    }
};

template <uint16_t (*narrow)(float), float (*widen)(uint16_t)> struct Float16 {
    static constexpr size_t block_bytes = 2;

    template <int> SPRAT_INLINE void pack(const float *weights, uint8_t *packed, size_t n) {
        for (size_t i = 0; i < n; ++i) store16(packed + 2 * i, narrow(weights[i]));
    }
    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (size_t i = 0; i < n; ++i) weights[i] = widen(load16(packed + 2 * i));
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(F32, Float32)
SPRAT_DEFINE_CODEC(F16, Float16<half_of, float_of_half>)
SPRAT_DEFINE_CODEC(BF16, Float16<bfloat_of, float_of_bfloat>)

}  // namespace sprat
