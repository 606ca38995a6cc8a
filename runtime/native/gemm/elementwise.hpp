// Operations on activations between products: quantizing to int8, SiLU, RMSNorm.
#pragma once

#include "runtime/native/gemm/token.hpp"

namespace {

// 32 elements share the scale d = max|x| / 127, as in Q8_0; their sums are part of the record. The
// maximum compares bits, as integers, so that infinity and NaN count as the largest: the scale
// becomes infinite or NaN, and with it every product.
INLINE void quantize_block(const float *x, const Token &to, int64_t block) {
    constexpr int N = 32 / kLanes;
    I top{};
    for (int i = 0; i < N; ++i) {
        const I size = load<I>(x + i * kLanes) & 0x7fffffff;
        top = size > top ? size : top;
    }
    const int32_t bits = reduce_max(top);
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    // Otherwise 127 / largest overflows, or is 0.
    const bool usable = largest > 1e-30f && largest < __builtin_inff();
    const float inverse = usable ? 127.0f / largest : 0.0f;
    F shifted[N];
    for (int i = 0; i < N; ++i) shifted[i] = load<F>(x + i * kLanes) * inverse + kRoundMagic;
    int32_t sums[2];  // the codes of a bad block are 0, and its scale is bad
    store_codes(shifted, usable, to.q + 32 * block, sums);
    to.d[block] = largest <= 1e-30f ? 0.0f : largest / 127.0f;  // NaN is not below: it stays
    std::memcpy(to.sum16 + 2 * block, sums, sizeof sums);
    to.sum32[block] = sums[0] + sums[1];
}

void quantize(const float *x, int64_t k, const QuantizedActivations &into, int64_t token) {
    const Token to = token_of(into, token);
    for (int64_t b = 0; b < into.k_padded / 32; ++b) {
        float rest[32] = {};
        if (32 * (b + 1) > k && 32 * b < k)
            std::memcpy(rest, x + 32 * b, (k - 32 * b) * sizeof(float));
        quantize_block(32 * (b + 1) > k ? rest : x + 32 * b, to, b);
    }
}

INLINE F silu_mul(F gate, F up) { return gate / (exp(-gate) + 1.0f) * up; }

void silu_mul(const float *gate, const float *up, int64_t n, float *out) {
    const int64_t whole = n / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes)
        store(out + i, silu_mul(load<F>(gate + i), load<F>(up + i)));
    if (whole == n) return;
    float rest[2][kLanes] = {};
    std::memcpy(rest[0], gate + whole, (n - whole) * sizeof(float));
    std::memcpy(rest[1], up + whole, (n - whole) * sizeof(float));
    const F last = silu_mul(load<F>(rest[0]), load<F>(rest[1]));
    std::memcpy(out + whole, &last, (n - whole) * sizeof(float));
}

// x / sqrt(mean(x^2) + eps) * gain (arXiv 1910.07467); out may be x. NaN where the sum of squares
// overflows: finite x would become zeros.
void rms_norm(const float *x, const float *gain, float eps, int64_t k, float *out) {
    const int64_t whole = k / kLanes * kLanes;
    F squares{};
    for (int64_t i = 0; i < whole; i += kLanes) squares += load<F>(x + i) * load<F>(x + i);
    float total = reduce_add(squares);
    for (int64_t i = whole; i < k; ++i) total += x[i] * x[i];
    const float scale = 1.0f / __builtin_sqrtf(total / float(k) + eps) + (total - total);
    for (int64_t i = 0; i < whole; i += kLanes)
        store(out + i, load<F>(x + i) * scale * load<F>(gain + i));
    for (int64_t i = whole; i < k; ++i) out[i] = x[i] * scale * gain[i];
}

}  // namespace
