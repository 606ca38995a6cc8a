// F32, F16, BF16: one weight a block.
#include "quant/native/half.h"

namespace sprat {
namespace {

struct F32 {
    static constexpr int ggml_type = 0;
    static constexpr size_t block_size = 1, block_bytes = 4;

    template <int> SPRAT_INLINE void pack(const float *weights, uint8_t *packed, size_t n) {
        std::memcpy(packed, weights, 4 * n);
    }
    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        std::memcpy(weights, packed, 4 * n);
    }
};

template <int type, uint16_t (*narrow)(float), float (*widen)(uint16_t)>
struct Float16 {
    static constexpr int ggml_type = type;
    static constexpr size_t block_size = 1, block_bytes = 2;

    template <int> SPRAT_INLINE void pack(const float *weights, uint8_t *packed, size_t n) {
        for (size_t i = 0; i < n; ++i) store16(packed + 2 * i, narrow(weights[i]));
    }
    template <int> SPRAT_INLINE void unpack(const uint8_t *packed, float *weights, size_t n) {
        for (size_t i = 0; i < n; ++i) weights[i] = widen(load16(packed + 2 * i));
    }
};

}  // namespace

Codec f32_codec() { return Variants<F32>::codec; }
Codec f16_codec() { return Variants<Float16<1, half_of, float_of_half>>::codec; }
Codec bf16_codec() { return Variants<Float16<30, bfloat_of, float_of_bfloat>>::codec; }

}  // namespace sprat
