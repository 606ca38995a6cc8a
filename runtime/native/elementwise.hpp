// What happens to activations between products: rounding to int8, SiLU, the norm.
#pragma once

#include "runtime/native/matrix.hpp"

namespace {

using sprat::Quantized;

// 32 numbers share the scale max|x| / 127. Adding 1.5 * 2^23 rounds to an integer, and leaves it in the low bits.
INLINE void quantize_block(const float *x, int n, int8_t *q, float *d, int32_t *sum32, int32_t *sum16) {
    float padded[32] = {};
    std::memcpy(padded, x, n * sizeof(float));
    float largest = 0;
    for (int i = 0; i < 32; ++i) largest = scalar_max(largest, __builtin_fabsf(padded[i]));
    const bool usable = largest > 1e-30f && largest < __builtin_inff();  // else 127 / largest overflows, or is 0
    *d = largest > 1e-30f ? largest / 127.0f : 0.0f;                      // infinity stays, and makes the result NaN
    const float inverse = usable ? 127.0f / largest : 0.0f;
    int32_t rounded[32], total[2] = {};
    for (int i = 0; i < 32; ++i) {
        const float shifted = padded[i] * inverse + 12582912.0f;
        std::memcpy(&rounded[i], &shifted, 4);
        rounded[i] -= 0x4b400000;
    }
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 16; ++i) total[half] += rounded[16 * half + i];
    for (int i = 0; i < 32; ++i) q[i] = int8_t(rounded[i]);
    sum16[0] = total[0], sum16[1] = total[1];
    *sum32 = total[0] + total[1];
}

void quantize(const float *x, int64_t k, const Quantized &into, int64_t token) {
    const int64_t n_blocks = into.k_padded / 32, first = token * n_blocks;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const int64_t at = first + b, left = k - 32 * b;
        const int n = left <= 0 ? 0 : least(left, 32);
        quantize_block(x + (n ? 32 * b : 0), n, into.q + 32 * at, into.d + at, into.sum32 + at, into.sum16 + 2 * at);
    }
}

void silu_mul(const float *gate, const float *up, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i += LANES) {
        float g[LANES] = {}, u[LANES] = {};
        const int m = least(n - i, LANES);
        std::memcpy(g, gate + i, m * sizeof(float));
        std::memcpy(u, up + i, m * sizeof(float));
        const F x = load<F>(g), y = x / (exp(-x) + 1.0f) * load<F>(u);
        std::memcpy(out + i, &y, m * sizeof(float));
    }
}

void rms_norm(const float *x, const float *gain, float eps, int64_t k, float *out) {
    const int64_t whole = k / LANES * LANES;
    F squares{};
    for (int64_t i = 0; i < whole; i += LANES) squares += load<F>(x + i) * load<F>(x + i);
    float total = sum(squares);
    for (int64_t i = whole; i < k; ++i) total += x[i] * x[i];
    const float scale = 1.0f / __builtin_sqrtf(total / float(k) + eps);
    for (int64_t i = 0; i < whole; i += LANES) store(out + i, load<F>(x + i) * scale * load<F>(gain + i));
    for (int64_t i = whole; i < k; ++i) out[i] = x[i] * scale * gain[i];
}

}  // namespace
