// Products with few tokens: rows stream past once, and every token takes its dot product from the codes in registers.
//
// Two rows at a time give the memory two streams and hide the latency of the dot product; more lose to the copies of
// their scales. Scales of eight blocks are converted together: one by one they cost as much as the codes.
#pragma once

#include "runtime/native/matrix.hpp"

namespace {

using sprat::Product;
using sprat::Quantized;

template <class D> constexpr int BIAS = D::bias + (D::is_signed ? SIGNED_BIAS : 0);
template <class D> constexpr int N_SCALES = D::halves ? 16 : 8;

INLINE F8 sums(const int32_t *q, F8 d) { return to_float8(load<I8>(q)) * d; }

// Scales of a row's group times those of a token's activations; returns what bias and minimum add to the dot product.
template <class D> INLINE F8 fold(const F8 *scale, F8 min, const Quantized &x, int64_t block, float *product) {
    const F8 d = load<F8>(x.d + block);
    if constexpr (D::halves) {
        const F8 low = scale[0] * __builtin_shufflevector(d, d, 0, 0, 1, 1, 2, 2, 3, 3);
        const F8 high = scale[1] * __builtin_shufflevector(d, d, 4, 4, 5, 5, 6, 6, 7, 7);
        store(product, low);
        store(product + 8, high);
        return (sums(x.sum16 + 2 * block, low) + sums(x.sum16 + 2 * block + 8, high)) * float(-BIAS<D>);
    } else {
        store(product, scale[0] * d);
        F8 folded{};
        if constexpr (BIAS<D> != 0) folded += sums(x.sum32 + block, scale[0] * d) * float(-BIAS<D>);
        if constexpr (D::has_min) folded += sums(x.sum32 + block, d) * min;
        return folded;
    }
}

template <int T> struct Totals {
    F dot[2][T] = {};
    F8 folded[2][T] = {};
};

// Adds one group of two rows, for T tokens whose activations of that group begin at block[t].
template <class D, int T>
INLINE void add_group(Totals<T> &totals, const uint8_t *const (&g)[2], const Quantized &x, const int64_t (&block)[T]) {
    alignas(64) float scale[2][T][N_SCALES<D>];
    for (int r = 0; r < 2; ++r) {
        F8 s[2], min{};
        D::scale(g[r], s);
        if constexpr (D::has_min) min = D::min(g[r]);
        for (int t = 0; t < T; ++t) totals.folded[r][t] += fold<D>(s, min, x, block[t], scale[r][t]);
    }
#pragma GCC unroll 8
    for (int c = 0; c < 8 / CHUNK_BLOCKS; ++c) {
        for (int r = 0; r < 2; ++r) {
            const Chunk codes = chunk<D>(g[r], c);
            for (int t = 0; t < T; ++t) {
                const int8_t *q = x.q + 32 * (block[t] + c * CHUNK_BLOCKS);
                const float *at = scale[r][t] + c * CHUNK_BLOCKS * (N_SCALES<D> / 8);
                totals.dot[r][t] = step<D::is_signed, D::halves>(totals.dot[r][t], codes, q, at);
            }
        }
    }
}

// Rows `row` and, `stride` bytes on, the one that is stored behind it.
template <class D, int T> void few_tokens_tile(const Product &p, int row, size_t stride, int first) {
    const Quantized &x = p.input->quantized;
    const uint8_t *w = p.weights + row * p.row_bytes;
    const size_t n_full = p.row_bytes / D::group_bytes, rest = p.row_bytes % D::group_bytes;
    Totals<T> totals;
    int64_t block[T];
    for (int t = 0; t < T; ++t) block[t] = (p.tokens ? p.tokens[first + t] : first + t) * (x.k_padded / 32);
    for (size_t i = 0; i < n_full; ++i, w += D::group_bytes) {
        // The rows after these two: 2 to 12 KB ahead. The hardware's own prefetch ends at each page.
        for (int line = 0; line < D::group_bytes; line += 64) {
            __builtin_prefetch(w + 2 * stride + line);
            __builtin_prefetch(w + 3 * stride + line);
        }
        add_group<D>(totals, {w, w + stride}, x, block);
        for (int t = 0; t < T; ++t) block[t] += 8;
    }
    if (rest) {  // a row that ends within a group: a copy of it with zeros behind, since decoders read whole groups
        uint8_t copy[2][D::group_bytes] = {};
        for (int r = 0; r < 2; ++r) std::memcpy(copy[r], w + r * stride, rest);
        add_group<D>(totals, {copy[0], copy[1]}, x, block);
    }
    for (int r = 0; r < 2; ++r) {
        for (int t = 0; t < T; ++t) {
            float folded = 0;
            for (int i = 0; i < 8; ++i) folded += totals.folded[r][t][i];
            p.out[(first + t) * p.out_stride + row + (stride ? r : 0)] = sum(totals.dot[r][t]) + folded;
        }
    }
}

template <class D> void few_tokens(const Product &p) {
    const size_t stride = p.n_rows > 1 ? p.row_bytes : 0;  // a single row is its own neighbour
    for (int row = 0; row < p.n_rows; row += 2) {
        const int pair = row > 0 && row + 2 > p.n_rows ? row - 1 : row;  // an odd last row takes the one before along
        int t = 0;
        for (; t + 4 <= p.n_tokens; t += 4) few_tokens_tile<D, 4>(p, pair, stride, t);
        for (; t < p.n_tokens; ++t) few_tokens_tile<D, 1>(p, pair, stride, t);
    }
}

}  // namespace
