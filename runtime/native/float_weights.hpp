// Products with F32, F16 and BF16 weights, in float32 throughout: tiles of 4 rows and 4 tokens, 16 sums in registers,
// so that each number that is loaded (and widened) meets four others.
#pragma once

#include "runtime/native/matrix.hpp"

namespace {

using sprat::Product;

template <class D, int R, int T> void float_tile(const Product &p, int row, int first) {
    const int64_t k = p.input->k, whole = k / LANES * LANES;
    const uint8_t *w[R];
    const float *x[T];
    for (int r = 0; r < R; ++r) w[r] = p.weights + (row + r) * p.row_bytes;
    for (int t = 0; t < T; ++t) x[t] = p.input->x + (p.tokens ? p.tokens[first + t] : first + t) * k;
    F total[R][T] = {};
    for (int64_t i = 0; i < whole; i += LANES) {
        F numbers[T];
        for (int t = 0; t < T; ++t) numbers[t] = load<F>(x[t] + i);
        for (int r = 0; r < R; ++r) {
            const F weights = D::numbers(w[r] + i * D::bytes);
            for (int t = 0; t < T; ++t) total[r][t] += weights * numbers[t];
        }
    }
    if (whole < k) {
        for (int r = 0; r < R; ++r) {
            uint8_t copy[LANES * D::bytes] = {};
            std::memcpy(copy, w[r] + whole * D::bytes, (k - whole) * D::bytes);
            const F weights = D::numbers(copy);
            for (int t = 0; t < T; ++t) {
                float rest[LANES] = {};
                std::memcpy(rest, x[t] + whole, (k - whole) * sizeof(float));
                total[r][t] += weights * load<F>(rest);
            }
        }
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) p.out[(first + t) * p.out_stride + row + r] = sum(total[r][t]);
}

template <class D, int R> void float_rows(const Product &p, int row) {
    int t = 0;
    for (; t + 4 <= p.n_tokens; t += 4) float_tile<D, R, 4>(p, row, t);
    for (; t < p.n_tokens; ++t) float_tile<D, R, 1>(p, row, t);
}

template <FloatDecoder D> void product(const Product &p) {
    int row = 0;
    for (; row + 4 <= p.n_rows; row += 4) float_rows<D, 4>(p, row);
    for (; row < p.n_rows; ++row) float_rows<D, 1>(p, row);
}

template <FloatDecoder D> void dequantize(const uint8_t *row, int64_t k, float *out) {
    for (int64_t i = 0; i < k; i += LANES) {
        const int n = least(k - i, LANES);
        uint8_t copy[LANES * D::bytes] = {};
        std::memcpy(copy, row + i * D::bytes, n * D::bytes);
        const F numbers = D::numbers(copy);
        std::memcpy(out + i, &numbers, n * sizeof(float));
    }
}

}  // namespace
