// Products with many tokens: a panel of rows is unpacked once, and every token takes its dot products from there.
//
// One register holds four codes of each of LANES rows, so a dot product needs no sum across lanes, and scales are
// applied to LANES rows at once. A panel is PANEL_ROWS x PANEL_COLUMNS: on AVX-512 32 x 512 codes, 16 KB with 2 KB of
// scales, which stay in L1 while all tokens pass, 6 x 512 bytes at a time. Their sums (128 bytes each) wait in L2.
#pragma once

#include <type_traits>

#include "runtime/native/few_tokens.hpp"
#include "runtime/native/isa.hpp"

namespace {

constexpr int PANEL_ROWS = PANEL_VECTORS * LANES, PANEL_COLUMNS = 512;

// Of one thread; sprat::product_scratch_bytes has room for it and PANEL_ROWS sums per token.
struct Panel {
    uint8_t codes[PANEL_COLUMNS / 4][PANEL_ROWS][4];
    float scale[PANEL_COLUMNS / 16][PANEL_ROWS];  // every 16 columns, or every 32
    float min[PANEL_COLUMNS / 32][PANEL_ROWS];
    uint8_t by_row[PANEL_ROWS][256];
};
static_assert(sizeof(Panel) <= 64 * 1024 && PANEL_ROWS <= sprat::LARGEST_PANEL, "product_scratch_bytes is too small");

// One group of PANEL_ROWS rows, row by row first, then transposed LANES x LANES dwords at a time.
template <class D> void unpack_group(const uint8_t *const *g, Panel &panel, int group) {
    for (int r = 0; r < PANEL_ROWS; ++r) {
        F8 s[2];
        D::scale(g[r], s);
        for (int i = 0; i < N_SCALES<D>; ++i) panel.scale[group * N_SCALES<D> + i][r] = s[i / 8][i % 8];
        if constexpr (D::has_min) {
            const F8 m = D::min(g[r]);
            for (int i = 0; i < 8; ++i) panel.min[group * 8 + i][r] = m[i];
        }
#pragma GCC unroll 8
        for (int c = 0; c < 8 / CHUNK_BLOCKS; ++c)
            store(panel.by_row[r] + 32 * CHUNK_BLOCKS * c, as_unsigned<D::is_signed>(chunk<D>(g[r], c)));
    }
    for (int column = 0; column < 64; column += LANES)
        for (int r = 0; r < PANEL_ROWS; r += LANES)
            transpose(panel.by_row[r] + 4 * column, 256, panel.codes[group * 64 + column][r], 4 * PANEL_ROWS);
}

// The columns from group `first` on. Rows beyond the last repeat it; their results are not stored.
template <class D> void unpack(const Product &p, int row, int64_t first, Panel &panel) {
    const size_t end = least(p.row_bytes, (first + PANEL_COLUMNS / 256) * D::group_bytes);
    uint8_t copy[PANEL_ROWS][D::group_bytes];
    int group = 0;
    for (size_t at = first * D::group_bytes; at < end; at += D::group_bytes, ++group) {
        const uint8_t *g[PANEL_ROWS];
        for (int r = 0; r < PANEL_ROWS; ++r) {
            g[r] = p.weights + size_t(least(row + r, p.n_rows - 1)) * p.row_bytes + at;
            if (at + D::group_bytes > end) g[r] = whole_group<D>(p, g[r], end - at, copy[r]);
        }
        unpack_group<D>(g, panel, group);
    }
}

// Adds the panel's products with T tokens to their sums (T, PANEL_ROWS). Dot products start at -bias * sum(q), so that
// the zero point costs nothing. STEPS dwords of codes share a scale: 8, or 4 in formats with halves. Compiled for five
// kinds of format and not for each of nine.
template <bool SIGNED, bool MIN, int STEPS, int BIAS_OF, int T>
void panel_tile(const Product &p, const Panel &panel, int first_column, int n_columns, int first, float *sums) {
    constexpr int V = PANEL_VECTORS;
    const int64_t k = p.input->quantized.k_padded;
    const uint8_t *record[T];
    F total[T][V];
    for (int t = 0; t < T; ++t) {
        record[t] = p.input->quantized.records + (p.tokens ? p.tokens[first + t] : first + t) * k * 3 / 2;
        for (int v = 0; v < V; ++v) total[t][v] = load<F>(sums + t * PANEL_ROWS + v * LANES);
    }
    const uint8_t *codes = panel.codes[0][0];
    const float *scale = panel.scale[0], *min = panel.min[0];
    int64_t q = first_column, d = k + first_column / 8;  // places in a record
    int64_t sum = STEPS == 4 ? k * 5 / 4 + first_column / 4 : k * 9 / 8 + first_column / 8;
    for (int b = 0; b < n_columns / (4 * STEPS); ++b) {
        I dot[T][V];
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            const I start = (I{} + load<int32_t>(record[t] + sum)) * -BIAS_OF;
            for (int v = 0; v < V; ++v) dot[t][v] = start;
        }
#pragma GCC unroll 8
        for (int j = 0; j < STEPS; ++j) {
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) {
                const auto four = repeat4(reinterpret_cast<const int8_t *>(record[t] + q + 4 * j));
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    dot[t][v] = panel_dot<SIGNED>(dot[t][v], codes + 4 * (j * PANEL_ROWS + v * LANES), four);
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const F of_row = load<F>(scale + v * LANES);
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) total[t][v] += to_float(dot[t][v]) * (of_row * load<float>(record[t] + d));
            if constexpr (MIN) {
                const F of_row_min = load<F>(min + v * LANES);
                for (int t = 0; t < T; ++t)
                    total[t][v] += of_row_min * (load<float>(record[t] + d) * float(load<int32_t>(record[t] + sum)));
            }
        }
        codes += 4 * STEPS * PANEL_ROWS, scale += PANEL_ROWS, min += PANEL_ROWS;
        q += 4 * STEPS, sum += 4;
        if (STEPS == 8 || b % 2) d += 4;
    }
    for (int t = 0; t < T; ++t)
        for (int v = 0; v < V; ++v) store(sums + t * PANEL_ROWS + v * LANES, total[t][v]);
}

// The columns of the panel that comes next are fetched while tokens pass over this one, a few rows per tile: what the
// hardware fetches ahead ends with each row's 288 bytes.
template <class D> void prefetch(const Product &p, int row, int column, int begin, int end) {
    if (column >= p.input->k) row += PANEL_ROWS, column = 0;
    for (int r = row + begin; r < least(row + end, p.n_rows); ++r) {
        const uint8_t *w = p.weights + r * p.row_bytes + column / 256 * D::group_bytes;
        for (int at = 0; at < PANEL_COLUMNS / 256 * D::group_bytes; at += 64) __builtin_prefetch(w + at, 0, 2);
    }
}

template <class D> void panel_tiles(const Product &p, const Panel &panel, int row, int column, float *sums) {
    const int n_columns = least(p.input->k - column, PANEL_COLUMNS);
    int t = 0;
    const auto take = [&]<int T>(std::integral_constant<int, T>) {
        for (; t + T <= p.n_tokens; t += T) {
            if (column + PANEL_COLUMNS >= p.input->k)  // results are about to be stored, each to a page of its own
                for (int i = t; i < t + T; ++i) __builtin_prefetch(p.out + i * p.out_stride + row, 1);
            prefetch<D>(p, row, column + PANEL_COLUMNS, t * PANEL_ROWS / p.n_tokens, (t + T) * PANEL_ROWS / p.n_tokens);
            panel_tile<D::is_signed, D::has_min, D::halves ? 4 : 8, BIAS<D>, T>(p, panel, column, n_columns, t,
                                                                                sums + t * PANEL_ROWS);
        }
    };
    take(std::integral_constant<int, PANEL_TOKENS>());
    take(std::integral_constant<int, PANEL_TOKENS / 2>());
    take(std::integral_constant<int, 1>());
}

template <class D> void many_tokens(const Product &p) {
    Panel &panel = *reinterpret_cast<Panel *>(p.scratch);
    float *sums = reinterpret_cast<float *>(p.scratch + (sizeof(Panel) + 63) / 64 * 64);
    for (int row = 0; row < p.n_rows; row += PANEL_ROWS) {
        std::memset(sums, 0, size_t(p.n_tokens) * PANEL_ROWS * sizeof(float));
        for (int column = 0; column < p.input->k; column += PANEL_COLUMNS) {
            unpack<D>(p, row, column / 256, panel);
            panel_tiles<D>(p, panel, row, column, sums);
        }
        const int n_rows = least(p.n_rows - row, PANEL_ROWS);
        for (int t = 0; t < p.n_tokens; ++t)
            std::memcpy(p.out + t * p.out_stride + row, sums + t * PANEL_ROWS, n_rows * sizeof(float));
    }
}

template <class D> void blocks_product(const Product &p) {
    if (p.n_tokens < PANEL_FROM) few_tokens<D>(p);
    else many_tokens<D>(p);
}

template <class D> void blocks_dequantize(const uint8_t *row, int64_t k, float *out) {
    uint8_t codes[32];
    for (int64_t at = 0; at < k; at += 256, row += D::group_bytes) {
        const int n = least(k - at, 256);
        uint8_t copy[D::group_bytes] = {};
        std::memcpy(copy, row, size_t(n) * D::group_bytes / 256);
        F8 s[2], min{};
        D::scale(copy, s);
        if constexpr (D::has_min) min = D::min(copy);
        for (int i = 0; i < n; ++i) {
            if (i % 32 == 0) store32(codes, D::codes(copy, i / 32));
            const int code = D::is_signed ? int(int8_t(codes[i % 32])) : int(codes[i % 32]);
            const int scale = D::halves ? i / 16 : i / 32;
            out[at + i] = s[scale / 8][scale % 8] * float(code - D::bias) + min[i / 32];
        }
    }
}

}  // namespace
