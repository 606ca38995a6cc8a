// Rounding to integers by one addition.
#pragma once

#include <cstdint>

namespace sprat {

// Floats between 2^23 and 2^24 are 1 apart. So adding 1.5 * 2^23 to |x| < 2^22 rounds x to the
// nearest integer, the even one half way, and leaves it in the low bits of the sum:
//
//   bits(x + kRoundMagic) = kRoundMagicBits + round(x)
//
// Subtracting the constant again gives round(x) as a float; subtracting the bits, as an integer.
constexpr float kRoundMagic = 12582912.0f;
constexpr int32_t kRoundMagicBits = 0x4b400000;

}  // namespace sprat
