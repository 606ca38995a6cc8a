// Products with F32, F16 and BF16 weights, in float32 throughout.
//
// Tiles of 4 rows x 4 tokens: 16 sums and 4 activations stay in registers, and each element that is
// loaded (and widened) is multiplied four times. Sums run over k in the lanes and are reduced at
// the end.
#pragma once

#include "runtime/native/gemm/decoders.hpp"
#include "runtime/native/gemm/task.hpp"

namespace {

using sprat::GemmTask;

template <class D, int R, int T> void float_tile(const GemmTask &task, int row, int first) {
    const int64_t k = task.input->k, whole = k / kLanes * kLanes;
    const uint8_t *w[R];
    const float *x[T];
    for (int r = 0; r < R; ++r) w[r] = task.weights + (row + r) * task.row_bytes;
    for (int t = 0; t < T; ++t)
        x[t] = task.input->x + (task.tokens ? task.tokens[first + t] : first + t) * k;
    F total[R][T] = {};
    for (int64_t i = 0; i < whole; i += kLanes) {
        F activations[T];
        for (int t = 0; t < T; ++t) activations[t] = load<F>(x[t] + i);
        for (int r = 0; r < R; ++r) {
            const F weights = D::elements(w[r] + i * D::bytes);
            for (int t = 0; t < T; ++t) total[r][t] += weights * activations[t];
        }
    }
    if (whole < k) {  // a copy padded with zeros, so that nothing is read behind the row
        for (int r = 0; r < R; ++r) {
            uint8_t copy[kLanes * D::bytes] = {};
            std::memcpy(copy, w[r] + whole * D::bytes, (k - whole) * D::bytes);
            const F weights = D::elements(copy);
            for (int t = 0; t < T; ++t) {
                float rest[kLanes] = {};
                std::memcpy(rest, x[t] + whole, (k - whole) * sizeof(float));
                total[r][t] += weights * load<F>(rest);
            }
        }
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t)
            task.out[(first + t) * task.out_stride + row + r] = reduce_add(total[r][t]);
}

template <class D, int R> void float_rows(const GemmTask &task, int row) {
    int t = 0;
    for (; t + 4 <= task.n_tokens; t += 4) float_tile<D, R, 4>(task, row, t);
    for (; t < task.n_tokens; ++t) float_tile<D, R, 1>(task, row, t);
}

template <FloatDecoder D> void gemm_task(const GemmTask &task) {
    int row = 0;
    for (; row + 4 <= task.n_rows; row += 4) float_rows<D, 4>(task, row);
    for (; row < task.n_rows; ++row) float_rows<D, 1>(task, row);
}

template <FloatDecoder D> void dequantize(const uint8_t *row, int64_t k, float *out) {
    for (int64_t i = 0; i < k; i += kLanes) {
        const int n = min(k - i, kLanes);
        uint8_t copy[kLanes * D::bytes] = {};
        std::memcpy(copy, row + i * D::bytes, n * D::bytes);
        const F elements = D::elements(copy);
        std::memcpy(out + i, &elements, n * sizeof(float));
    }
}

}  // namespace
