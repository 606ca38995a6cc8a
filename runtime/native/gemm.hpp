// C = A . B in words (words.hpp), for attention. Each word of A is broadcast and B is read along its rows, so that no sum
// crosses lanes.
//
// Tiles of GEMM_ROWS x GEMM_VECTORS registers (AVX-512: 6 x 4): each step of k loads 4 registers of B and broadcasts 6
// words of A for 24 multiply-adds, which is what two multiply-add and two load ports balance. Of B's last columns, or where
// there are no more, one register at a time: GEMM_TALL rows, whose sums hide the latency.
#pragma once

#include "runtime/native/words.hpp"

namespace {

constexpr int GEMM_COLUMNS = GEMM_VECTORS * LANES;

// Word i of row r lies at `at + r * row + i * step`. What lies at `ahead`, so many bytes for each row, is wanted after this
// product.
template <class W> struct Left {
    const typename W::Word *at;
    int64_t row, step;
    const uint8_t *ahead = nullptr;
    int64_t ahead_row = 0;
};

// Panels of GEMM_COLUMNS columns and `depth` words, one after the other; the last one may be narrower.
template <class W> struct Right {
    const typename W::Word *at;
    int64_t depth;
    int columns;  // a multiple of LANES
};

template <class W, int R, int V, class Sink>
INLINE void gemm_tile(int first, int column, int k, Left<W> a, const typename W::Word *b, int b_stride, const Sink &sink) {
    typename W::V total[R][V] = {};
    const typename W::Word *left = a.at + first * a.row;
    for (int i = 0; i < k; ++i, left += a.step, b += b_stride) {
        typename W::V row[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) row[v] = load<typename W::V>(b + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) total[r][v] = W::dot(total[r][v], typename W::V{} + left[r * a.row], row[v]);
        // With few queries rows pass faster than they come: fetch as many, into L2 because they are wanted only later.
        if constexpr (V == 1)
            if (a.ahead) __builtin_prefetch(a.ahead + first * a.ahead_row + 4 * i * R);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sink(first + r, column + v * LANES, W::number(total[r][v]));
}

template <class W, int V, class Sink>
void gemm_columns(int m, int column, int k, Left<W> a, const typename W::Word *b, int b_stride, const Sink &sink) {
    constexpr int R = V == 1 ? GEMM_TALL : GEMM_ROWS;
    int r = 0;
    for (; r + R <= m; r += R) gemm_tile<W, R, V>(r, column, k, a, b, b_stride, sink);
    for (; r + 4 <= m; r += 4) gemm_tile<W, 4, V>(r, column, k, a, b, b_stride, sink);
    for (; r < m; ++r) gemm_tile<W, 1, V>(r, column, k, a, b, b_stride, sink);
}

// sink(row, column, LANES numbers) of a (m, k words) . b (k words, columns).
template <class W, class Sink> void gemm(int m, int k, Left<W> a, Right<W> b, const Sink &sink) {
    for (int column = 0; column < b.columns; column += GEMM_COLUMNS) {
        const typename W::Word *panel = b.at + column * b.depth;
        const int width = least(b.columns - column, GEMM_COLUMNS);
        if (width == GEMM_COLUMNS) gemm_columns<W, GEMM_VECTORS>(m, column, k, a, panel, width, sink);
        else
            for (int c = 0; c < width; c += LANES) gemm_columns<W, 1>(m, column + c, k, a, panel + c, width, sink);
    }
}

INLINE int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Where word `i` of column `c` lies in panels; columns up to the next multiple of LANES follow it.
INLINE int64_t in_panels(int i, int c, int64_t depth, int columns) {
    const int panel = c / GEMM_COLUMNS * GEMM_COLUMNS;
    return panel * depth + int64_t(i) * least(columns - panel, GEMM_COLUMNS) + c - panel;
}

// n rows of `dim` numbers, `stride` apart, packed and transposed: (n_words, columns), zeros where there is no row.
template <class W> struct Columns {
    typename W::Word *words;
    float *scale;
    int columns, n_words;

    Right<W> from(int first) const { return {words + int64_t(first) * n_words, n_words, columns - first}; }

    // `row` holds one row of numbers, `space` LANES rows of words.
    void pack(const float *x, int n, int dim, int64_t stride, float *row, typename W::Word *space) const {
        const int padded = n_words * W::NUMBERS;
        for (int first = 0; first < columns; first += LANES) {
            for (int r = 0; r < LANES; ++r) {
                const int kept = first + r < n ? dim : 0;
                if (kept) std::memcpy(row, x + (first + r) * stride, kept * sizeof(float));
                std::memset(row + kept, 0, (padded - kept) * sizeof(float));
                scale[first + r] = pack_row<W>(row, padded, code_limit(padded), space + int64_t(r) * n_words);
            }
            for (int i = 0; i < n_words; i += 4) {
                I four[4];
                columns4(reinterpret_cast<const uint8_t *>(space + i), 4 * int64_t(n_words), four);
                for (int j = 0; j < 4; ++j) store(words + in_panels(i + j, first, n_words, columns), four[j]);
            }
        }
    }
};

}  // namespace
