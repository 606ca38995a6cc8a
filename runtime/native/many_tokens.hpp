// Products with many tokens: a panel of rows is unpacked once, and every token takes its dot products from there.
//
// One register holds four codes of each of LANES rows, so a dot product needs no sum across lanes, and scales are
// applied to LANES rows at once. 16 rows of 2048 weights are 32 KB of codes: they stay in L1 or L2, while a tile of
// PANEL_TOKENS tokens (12 x 2 KB) passes.
#pragma once

#include "runtime/native/few_tokens.hpp"

namespace {

constexpr int PANEL_ROWS = PANEL_VECTORS * LANES;

struct Panel {
    uint8_t *codes;  // (k_padded / 4, PANEL_ROWS, 4)
    float *scale;    // (number of scales, PANEL_ROWS)
    float *min;      // the same, for formats that have minima
};

template <class D> Panel lay_out(const Product &p, uint8_t *at) {
    const int64_t k_padded = p.input->quantized.k_padded;
    float *scale = reinterpret_cast<float *>(at + PANEL_ROWS * k_padded);
    return {at, scale, scale + PANEL_ROWS * (k_padded / 256) * N_SCALES<D>};
}

// Codes of one group of PANEL_ROWS rows: row by row first, then transposed LANES x LANES dwords at a time.
template <class D> void unpack_group(const uint8_t *const *g, uint8_t *codes, float *scale, float *min) {
    alignas(64) uint8_t by_row[PANEL_ROWS][256];
    for (int r = 0; r < PANEL_ROWS; ++r) {
        F8 s[2];
        D::scale(g[r], s);
        for (int i = 0; i < N_SCALES<D>; ++i) scale[i * PANEL_ROWS + r] = s[i / 8][i % 8];
        if constexpr (D::has_min) {
            const F8 m = D::min(g[r]);
            for (int i = 0; i < 8; ++i) min[i * PANEL_ROWS + r] = m[i];
        }
#pragma GCC unroll 8
        for (int b = 0; b < 8; ++b) {
            const B32 block = D::codes(g[r], b);
            store32(by_row[r] + 32 * b, D::is_signed ? as_unsigned(block) : block);
        }
    }
    for (int column = 0; column < 64; column += LANES)
        for (int r = 0; r < PANEL_ROWS; r += LANES)
            transpose(by_row[r] + 4 * column, 256, codes + 4 * (column * PANEL_ROWS + r), 4 * PANEL_ROWS);
}

// Rows beyond the last repeat it; their results are not stored.
template <class D> void unpack(const Product &p, int row, const Panel &panel) {
    const size_t group_bytes = D::group_bytes;
    uint8_t copy[PANEL_ROWS][D::group_bytes];
    for (size_t at = 0, i = 0; at < p.row_bytes; at += group_bytes, ++i) {
        const size_t rest = p.row_bytes - at;
        const uint8_t *g[PANEL_ROWS];
        for (int r = 0; r < PANEL_ROWS; ++r) {
            g[r] = p.weights + size_t(least(row + r, p.n_rows - 1)) * p.row_bytes + at;
            if (rest >= group_bytes) continue;
            std::memcpy(copy[r], g[r], rest);
            std::memset(copy[r] + rest, 0, group_bytes - rest);
            g[r] = copy[r];
        }
        const int64_t scales = i * N_SCALES<D> * PANEL_ROWS;
        unpack_group<D>(g, panel.codes + i * 256 * PANEL_ROWS, panel.scale + scales, panel.min + scales);
    }
}

// STEPS dwords of codes share a scale: 8, or 4 in formats with halves. The sums start at -bias * sum(q), so that the
// zero point costs nothing.
template <bool SIGNED, bool MIN, int STEPS, int T>
void panel_tile(const Product &p, const Panel &panel, int bias, int row, int first) {
    constexpr int V = PANEL_VECTORS;
    const Quantized &x = p.input->quantized;
    const int n_blocks = int(p.input->k / 32 * (8 / STEPS));
    const int8_t *q[T];
    const float *d[T];
    const int32_t *sum[T];
    for (int t = 0; t < T; ++t) {
        const int64_t token = p.tokens ? p.tokens[first + t] : first + t;
        q[t] = x.q + token * x.k_padded;
        d[t] = x.d + token * (x.k_padded / 32);
        sum[t] = STEPS == 8 ? x.sum32 + token * (x.k_padded / 32) : x.sum16 + token * (x.k_padded / 16);
    }
    F total[T][V] = {};
    for (int b = 0; b < n_blocks; ++b) {
        I dot[T][V];
        for (int t = 0; t < T; ++t)
            for (int v = 0; v < V; ++v) dot[t][v] = I{} - bias * sum[t][b];
#pragma GCC unroll 8
        for (int j = 0; j < STEPS; ++j) {
            const uint8_t *codes = panel.codes + int64_t(b * STEPS + j) * 4 * PANEL_ROWS;
            for (int t = 0; t < T; ++t) {
                const auto four = repeat4(q[t] + 4 * (b * STEPS + j));
                for (int v = 0; v < V; ++v) dot[t][v] = panel_dot<SIGNED>(dot[t][v], codes + 4 * LANES * v, four);
            }
        }
        for (int v = 0; v < V; ++v) {
            const F scale = load<F>(panel.scale + b * PANEL_ROWS + v * LANES);
            for (int t = 0; t < T; ++t) total[t][v] += to_float(dot[t][v]) * (scale * d[t][b * STEPS / 8]);
            if constexpr (MIN) {
                const F min = load<F>(panel.min + b * PANEL_ROWS + v * LANES);
                for (int t = 0; t < T; ++t) total[t][v] += min * (d[t][b] * float(sum[t][b]));
            }
        }
    }
    const int n_rows = least(p.n_rows - row, PANEL_ROWS);
    for (int t = 0; t < T; ++t) {
        std::memcpy(p.out + (first + t) * p.out_stride + row, total[t], n_rows * sizeof(float));
    }
}

template <bool SIGNED, bool MIN, int STEPS, int T>
int panel_tiles(const Product &p, const Panel &panel, int bias, int row, int first) {
    for (; first + T <= p.n_tokens; first += T) panel_tile<SIGNED, MIN, STEPS, T>(p, panel, bias, row, first);
    return first;
}

template <class D> void many_tokens(const Product &p) {
    constexpr bool SIGNED = D::is_signed, MIN = D::has_min;
    constexpr int STEPS = D::halves ? 4 : 8;
    const Panel panel = lay_out<D>(p, p.scratch);
    for (int row = 0; row < p.n_rows; row += PANEL_ROWS) {
        unpack<D>(p, row, panel);
        int t = panel_tiles<SIGNED, MIN, STEPS, PANEL_TOKENS>(p, panel, BIAS<D>, row, 0);
        t = panel_tiles<SIGNED, MIN, STEPS, PANEL_TOKENS / 2>(p, panel, BIAS<D>, row, t);
        if constexpr (PANEL_TOKENS > 4) t = panel_tiles<SIGNED, MIN, STEPS, 3>(p, panel, BIAS<D>, row, t);
        panel_tiles<SIGNED, MIN, STEPS, 1>(p, panel, BIAS<D>, row, t);
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
