// binary16 and bfloat16 by integer operations on the bits: the same on every processor, and without
// branches, so that loops over them vectorise.
#pragma once

#include "quant/native/codec.hpp"

#include <bit>
#include <cstring>

namespace sprat {

SPRAT_INLINE uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
SPRAT_INLINE float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

// Rounds to nearest even; beyond 65504 is infinite.
SPRAT_INLINE uint16_t half_of(float value) {
    const uint32_t sign = bits_of(value) >> 16 & 0x8000, bits = bits_of(value) & 0x7fffffff;
    // Normal numbers: subtract 112 from the exponent and round at bit 13.
    const uint32_t normal = (bits + 0xc8000fff + (bits >> 13 & 1)) >> 13;
    // Subnormal ones: floats near 0.5 are as far apart as subnormal halves, so the addition rounds.
    const uint32_t denormal = bits_of(from_bits(bits) + 0.5f) - bits_of(0.5f);
    const uint32_t special = bits > 0x7f800000 ? 0x7e00 | (bits >> 13 & 0x3ff) : 0x7c00;
    const uint32_t finite = bits < 0x38800000 ? denormal : normal;
    return uint16_t(sign | (bits >= 0x47800000 ? special : finite));
}

SPRAT_INLINE float float_of_half(uint16_t half) {
    const uint32_t rest = half & 0x7fff;
    const float scaled = from_bits(rest << 13) * 0x1p112f;  // exact, denormals too
    const uint32_t bits = rest >= 0x7c00 ? bits_of(scaled) | 0x7f800000 : bits_of(scaled);
    return from_bits(bits | uint32_t(half & 0x8000) << 16);
}

// Rounds to nearest even; a NaN becomes quiet, so that it cannot round to infinity.
SPRAT_INLINE uint16_t bfloat_of(float value) {
    const uint32_t bits = bits_of(value);
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    return uint16_t((is_nan ? bits | 0x00400000 : bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

SPRAT_INLINE float float_of_bfloat(uint16_t bfloat) { return from_bits(uint32_t(bfloat) << 16); }

// Fields of a packed block may lie at any address.
SPRAT_INLINE uint16_t load16(const uint8_t *packed) {
    uint16_t value;
    std::memcpy(&value, packed, sizeof value);
    return value;
}
SPRAT_INLINE void store16(uint8_t *packed, uint16_t value) {
    std::memcpy(packed, &value, sizeof value);
}
SPRAT_INLINE float load_half(const uint8_t *packed) { return float_of_half(load16(packed)); }
SPRAT_INLINE void store_half(uint8_t *packed, float value) { store16(packed, half_of(value)); }

// The nearest binary16, as float32: the largest finite one instead of infinity, and no -0.
SPRAT_INLINE float saturate_half(float value) {
    const float low = value < -65504.f ? -65504.f : value;
    return float_of_half(half_of(low > 65504.f ? 65504.f : low)) + 0.f;
}

}  // namespace sprat
