// C = A . B in words (operands.hpp), the two products of attention: scores = keys . queries, and
// sums = weights . values. Each word of A is broadcast and B is read along its rows, so that no sum
// crosses lanes.
//
//                          B: panels of kAttnNR columns, depth x kAttnNR words each
//                          [ panel 0 ][ panel 1 ][ last, narrower ]
//   A: m x k words         [         ]
//   [ kAttnMR rows     ] . [         ]  =  kAttnMR x kAttnNR sums in registers
//
// The micro-kernel is kAttnMR x kAttnNRVectors registers (isa/x86/avx512.hpp and others say why).
// Where B ends, or has no more columns, one register at a time: kAttnTallMR rows, whose sums hide
// the latency.
#pragma once

#include "runtime/native/flash/operands.hpp"

namespace {

constexpr int kAttnNR = kAttnNRVectors * kLanes;

// Word i of row r lies at `at + r * row + i * step`. What lies at `ahead`, so many bytes for each
// row, is wanted after this product, and prefetched.
template <class W> struct OperandA {
    const typename W::Word *at;
    int64_t row, step;
    const uint8_t *ahead = nullptr;
    int64_t ahead_row = 0;
};

// Panels of kAttnNR columns and `depth` words, one after the other; the last one may be narrower.
template <class W> struct OperandB {
    const typename W::Word *at;
    int64_t depth;
    int columns;  // a multiple of kLanes
};

template <class W, int R, int V, class Sink>
INLINE void tile(int first, int column, int k, OperandA<W> a, const typename W::Word *b,
                 int b_stride, const Sink &sink) {
    typename W::V total[R][V] = {};
    const typename W::Word *row_of_a = a.at + first * a.row;
    for (int i = 0; i < k; ++i, row_of_a += a.step, b += b_stride) {
        typename W::V row[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) row[v] = load<typename W::V>(b + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                total[r][v] =
                    W::dot(total[r][v], in_every_lane<typename W::V>(row_of_a[r * a.row]), row[v]);
        // With few queries, entries pass faster than memory delivers them: fetch the next block's
        // meanwhile.
        if constexpr (V == 1)
            if (a.ahead) __builtin_prefetch(a.ahead + first * a.ahead_row + 4 * i * R);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sink(first + r, column + v * kLanes, W::value(total[r][v]));
}

template <class W, int V, class Sink>
void tiles_of_columns(int m, int column, int k, OperandA<W> a, const typename W::Word *b,
                      int b_stride, const Sink &sink) {
    constexpr int R = V == 1 ? kAttnTallMR : kAttnMR;
    int r = 0;
    for (; r + R <= m; r += R) tile<W, R, V>(r, column, k, a, b, b_stride, sink);
    for (; r + 4 <= m; r += 4) tile<W, 4, V>(r, column, k, a, b, b_stride, sink);
    for (; r < m; ++r) tile<W, 1, V>(r, column, k, a, b, b_stride, sink);
}

// sink(row, column, kLanes values) of a (m, k words) . b (k words, columns).
template <class W, class Sink>
void multiply(int m, int k, OperandA<W> a, OperandB<W> b, const Sink &sink) {
    for (int column = 0; column < b.columns; column += kAttnNR) {
        const typename W::Word *panel = b.at + column * b.depth;
        const int width = min(b.columns - column, kAttnNR);
        if (width == kAttnNR)
            tiles_of_columns<W, kAttnNRVectors>(m, column, k, a, panel, width, sink);
        else
            for (int c = 0; c < width; c += kLanes)
                tiles_of_columns<W, 1>(m, column + c, k, a, panel + c, width, sink);
    }
}

// Offset of word `i` of column `c` in B's panels; columns up to the next multiple of kLanes follow
// it.
INLINE int64_t in_panels(int i, int c, int64_t depth, int columns) {
    const int panel = c / kAttnNR * kAttnNR;
    return panel * depth + int64_t(i) * min(columns - panel, kAttnNR) + c - panel;
}

// n rows of `dim` elements, packed and transposed to a B of (n_words, columns): zeros where there
// is no row.
template <class W> struct PackedColumns {
    typename W::Word *words;
    float *scale;  // of each column
    int columns, n_words;

    OperandB<W> from(int first) const {
        return {words + int64_t(first) * n_words, n_words, columns - first};
    }

    // Rows lie `stride` apart. `row` holds one row of elements, `space` kLanes rows of words.
    void pack(const float *x, int n, int dim, int64_t stride, float *row,
              typename W::Word *space) const {
        const int padded = n_words * W::kPerWord;
        for (int first = 0; first < columns; first += kLanes) {
            for (int r = 0; r < kLanes; ++r) {
                const int kept = first + r < n ? dim : 0;
                if (kept) std::memcpy(row, x + (first + r) * stride, kept * sizeof(float));
                std::memset(row + kept, 0, (padded - kept) * sizeof(float));
                scale[first + r] =
                    pack_row<W>(row, padded, code_limit(padded), space + int64_t(r) * n_words);
            }
            for (int i = 0; i < n_words; i += 4) {
                I four[4];
                transpose4x4(reinterpret_cast<const uint8_t *>(space + i), 4 * int64_t(n_words),
                             four);
                for (int j = 0; j < 4; ++j)
                    store(words + in_panels(i + j, first, n_words, columns), four[j]);
            }
        }
    }
};

}  // namespace
