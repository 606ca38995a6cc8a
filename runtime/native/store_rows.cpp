#include "runtime/native/store_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/native/codec.hpp"

namespace sprat {
namespace {

const Pack PACK_HALF = codec_F16().pack[0];

// n numbers, and zeros up to a whole group, as codes; their sum is returned. NumPy's arithmetic, step by step.
int16_t store_group(const float *x, int n, int group, uint8_t *codes, uint8_t *scale_to) {
    float largest = 0;  // NaN once there is one
    for (int i = 0; i < n && !std::isnan(largest); ++i)
        if (!(std::fabs(x[i]) <= largest)) largest = std::fabs(x[i]);
    const float scale = largest / 127.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
    PACK_HALF(&scale, scale_to, 1);
    int sum = 0;
    for (int i = 0; i < n; ++i) {
        const float product = x[i] * inverse;
        const int code = std::isnan(product) ? 0 : int(std::nearbyint(product));
        codes[i] = uint8_t(code);
        sum += code;
    }
    std::memset(codes + n, 0, group - n);
    return int16_t(sum);
}

}  // namespace

void store_row(const Rows &rows, int64_t r, const float *x, int64_t n) {
    uint8_t *to = const_cast<uint8_t *>(rows.data) + r * rows.stride;
    if (rows.floats) {
        std::memcpy(to, x, n * sizeof(float));
        return;
    }
    for (int g = 0, at = 0; g < rows.n_groups(); ++g, at += rows.group) {
        const int here = std::min(rows.group, rows.n_int8 - at);
        const int16_t sum = store_group(x + at, here, rows.group, to + at, to + rows.scales_at() + 2 * g);
        std::memcpy(to + rows.sums_at() + 2 * g, &sum, sizeof sum);
    }
    PACK_HALF(x + rows.n_int8, to + rows.halves_at(), n - rows.n_int8);
}

}  // namespace sprat
