// Rotary position embedding (arXiv 2104.09864), in place.
#pragma once

#include <cstdint>

namespace sprat {

// One token's heads of 2 * half elements, `stride` elements apart. A pair (a, b) is two neighbours
// if interleaved, else one element of each half.
inline void rotate(float *x, int64_t heads, int64_t stride, int64_t half, const float *cos,
                   const float *sin, bool interleaved) {
    const int64_t apart = interleaved ? 1 : half, step = interleaved ? 2 : 1;
    for (int64_t h = 0; h < heads; ++h, x += stride) {
        for (int64_t i = 0; i < half; ++i) {
            const float a = x[i * step], b = x[i * step + apart];
            x[i * step] = a * cos[i] - b * sin[i];
            x[i * step + apart] = b * cos[i] + a * sin[i];
        }
    }
}

}  // namespace sprat
