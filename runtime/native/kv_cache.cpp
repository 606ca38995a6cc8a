#include "runtime/native/kv_cache.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/native/codec.hpp"

namespace sprat {
namespace {

const Pack kPackHalf = codec_F16().pack[0];

// n elements as codes, and zeros up to a whole group; returns the sum of the codes. The arithmetic
// of NumPy's twin, step by step.
int16_t store_group(const float *x, int n, int group, uint8_t *codes, uint8_t *scale_to) {
    float largest = 0;  // stays NaN once it is NaN
    for (int i = 0; i < n && !std::isnan(largest); ++i)
        if (!(std::fabs(x[i]) <= largest)) largest = std::fabs(x[i]);
    const float scale = largest / 127.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
    kPackHalf(&scale, scale_to, 1);
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

void store_entry(const KvEntries &entries, int64_t i, const float *x, int64_t n) {
    uint8_t *to = const_cast<uint8_t *>(entries.data) + i * entries.stride;
    if (entries.is_float32) {
        std::memcpy(to, x, n * sizeof(float));
        return;
    }
    for (int g = 0, at = 0; g < entries.n_groups(); ++g, at += entries.group) {
        const int here = std::min(entries.group, entries.n_int8 - at);
        const int16_t sum =
            store_group(x + at, here, entries.group, to + at, to + entries.scales_at() + 2 * g);
        std::memcpy(to + entries.sums_at() + 2 * g, &sum, sizeof sum);
    }
    kPackHalf(x + entries.n_int8, to + entries.f16_tail_at(), n - entries.n_int8);
}

}  // namespace sprat
