// Products with many tokens: a panel of rows is unpacked once, and every token takes its dot products from there.
//
// One register holds four codes of each of LANES rows, so a dot product needs no sum across lanes, and scales are
// applied to LANES rows at once. A panel is PANEL_ROWS x PANEL_COLUMNS: on AVX-512 32 x 1024 codes, 32 KB with 4 KB of
// scales, about what L1 holds, while all tokens pass, 6 x 1024 bytes at a time: beginning a tile costs as much as one and a
// half of its 32 blocks, so half as wide a panel was 4 % slower. Tokens' sums (128 bytes each) wait in L2.
#pragma once

#include "runtime/native/isa.hpp"
#include "runtime/native/short_rows.hpp"

namespace {

constexpr int PANEL_ROWS = PANEL_VECTORS * LANES, PANEL_COLUMNS = 1024;

// Of one thread; sprat::product_scratch_bytes has room for it and PANEL_ROWS sums per token.
struct Panel {
    uint8_t codes[PANEL_COLUMNS / 4][PANEL_ROWS][4];
    float scale[PANEL_COLUMNS / 16][PANEL_ROWS];  // every 16 columns, or every 32
    float min[PANEL_COLUMNS / 32][PANEL_ROWS];
};
static_assert(sizeof(Panel) <= 64 * 1024 && PANEL_ROWS <= sprat::LARGEST_PANEL, "product_scratch_bytes is too small");

// A group of each of LANES rows.
struct Groups {
    const uint8_t *first;
    size_t stride;

    const uint8_t *operator[](int row) const { return first + row * stride; }
};

// Eight numbers of each row to LANES numbers of each of eight blocks.
INLINE void across(const F8 *numbers, size_t stride, float *out) {
    for (int i = 0; i < 8; i += 4) {
        I four[4];
        columns4(reinterpret_cast<const uint8_t *>(numbers) + 4 * i, stride, four);
        for (int j = 0; j < 4; ++j) store(out + (i + j) * PANEL_ROWS, four[j]);
    }
}

template <class D> void unpack_scales(Groups g, int group, int row, Panel &panel) {
    F8 scale[LANES][2], min[LANES];
    for (int r = 0; r < LANES; ++r) {
        D::scale(g[r], scale[r]);
        if constexpr (D::has_min) min[r] = D::min(g[r]);
    }
    float *to = panel.scale[group * N_SCALES<D>] + row;
    for (int i = 0; i < N_SCALES<D>; i += 8) across(scale[0] + i / 8, sizeof scale[0], to + i * PANEL_ROWS);
    if constexpr (D::has_min) across(min, sizeof min[0], panel.min[group * 8] + row);
}

// Packed nibbles are brought across before they are taken apart: half as many to move.
template <class D> void unpack_nibbles(Groups g, int group, int row, Panel &panel) {
    constexpr int SPAN = D::packed_blocks;
    for (int i = 0; i < 8; ++i) {
        I four[4];
        columns4(g.first + D::packed(i), g.stride, four);
        abreast(four);
        const int low = group * 64 + i / SPAN * 8 * SPAN + i % SPAN * 4, high = low + 4 * SPAN;
        for (int j = 0; j < 4; ++j) {
            store(panel.codes[low + j][row], four[j] & 0x0f0f0f0f);
            store(panel.codes[high + j][row], four[j] >> 4 & 0x0f0f0f0f);
        }
    }
}

template <class D> void unpack_chunks(Groups g, int group, int row, Panel &panel) {
    uint8_t codes[LANES][256];
    for (int r = 0; r < LANES; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < 8 / CHUNK_BLOCKS; ++c)
            store(codes[r] + 32 * CHUNK_BLOCKS * c, as_unsigned<D::is_signed>(chunk<D>(g[r], c)));
    for (int column = 0; column < 64; column += 4) {
        I four[4];
        columns4(codes[0] + 4 * column, 256, four);
        abreast(four);
        for (int j = 0; j < 4; ++j) store(panel.codes[group * 64 + column + j][row], four[j]);
    }
}

// The columns from group `first` on. Decoders read whole groups of all rows: where the weights end before, a copy.
template <class D> void unpack(const Product &p, int row, int64_t first, Panel &panel) {
    const size_t end = least(p.row_bytes, (first + PANEL_COLUMNS / 256) * D::group_bytes);
    uint8_t copy[PANEL_ROWS][D::group_bytes];
    int group = 0;
    for (size_t at = first * D::group_bytes; at < end; at += D::group_bytes, ++group) {
        Groups g{p.weights + row * p.row_bytes + at, p.row_bytes};
        if (g[PANEL_ROWS - 1] + D::group_bytes > p.weights + p.n_rows * p.row_bytes) {
            std::memset(copy, 0, sizeof copy);
            const size_t n_bytes = least(end - at, D::group_bytes);
            for (int r = 0; r < least(PANEL_ROWS, p.n_rows - row); ++r) std::memcpy(copy[r], g[r], n_bytes);
            g = {copy[0], D::group_bytes};
        }
        for (int r = 0; r < PANEL_ROWS; r += LANES) {
            const Groups some{g[r], g.stride};
            unpack_scales<D>(some, group, r, panel);
            if constexpr (requires { D::packed(0); }) unpack_nibbles<D>(some, group, r, panel);
            else unpack_chunks<D>(some, group, r, panel);
        }
    }
}

// Beyond the last token: the last one.
INLINE Token token_at(const Product &p, int i) {
    const int kept = least(i, p.n_tokens - 1);
    return token_of(p.input->quantized, p.tokens ? p.tokens[kept] : kept);
}

// A token's numbers, each beside those of the tokens that share its register.
template <class V, class Number> INLINE void spread(V numbers, Number *to) {
    if constexpr (ABREAST == 1) store(to, numbers);
    else
        for (int i = 0; i < LANES; ++i) to[i * ABREAST] = numbers[i];
}

// The panel that comes next, fetched line by line while tokens pass over this one: of many lines at once most are dropped,
// and what the hardware fetches ahead ends with each row's few hundred bytes.
struct NextPanel {
    const uint8_t *at;
    size_t row_bytes;
    int row_lines;
};

// The share of a tile of tokens first .. last - 1, spread over its blocks.
class Fetcher {
  public:
    Fetcher(const NextPanel &panel, int first, int last, int n_tokens, int n_blocks)
        : row_lines(panel.row_lines), skipped(panel.row_bytes - panel.row_lines * 64) {
        const int n_lines = PANEL_ROWS * row_lines, line = first * n_lines / n_tokens;
        left = last * n_lines / n_tokens - line;
        per_block = (left + n_blocks - 1) / n_blocks;
        at = panel.at + line / row_lines * panel.row_bytes + line % row_lines * 64;
        in_row = row_lines - line % row_lines;
    }

    INLINE void step() {
        for (int i = least(per_block, left); i > 0; --i, --left, at += 64) {
            __builtin_prefetch(at);
            if (--in_row == 0) at += skipped, in_row = row_lines;
        }
    }

  private:
    const uint8_t *at;
    int row_lines, in_row, left, per_block;
    int64_t skipped;
};

// Behind the last panel of a product comes the first of the one that the thread does next.
template <class D> NextPanel next_panel(const Product &p, int row, int column) {
    column += PANEL_COLUMNS;
    if (column >= p.input->k) row += PANEL_ROWS, column = 0;
    const uint8_t *rows = row < p.n_rows ? p.weights + row * p.row_bytes : p.next;
    return {rows + column / 256 * D::group_bytes, p.row_bytes, (PANEL_COLUMNS / 256 * D::group_bytes + 63) / 64};
}

// Adds the panel's products with T tokens to their sums (T / ABREAST, PANEL_ROWS, ABREAST). Dot products start at
// -bias * sum(q), so that the zero point costs nothing. STEPS dwords of codes share a scale: 8, or 4 in formats with
// halves. Compiled for five kinds of format and not for each of nine.
template <bool SIGNED, bool MIN, int STEPS, int BIAS_OF, int T>
void panel_tile(const Product &p, const Panel &panel, int first_column, int n_columns, int first, const NextPanel &ahead,
                float *sums) {
    constexpr int G = ABREAST, N = T / G, V = PANEL_VECTORS * G, BLOCKS = PANEL_COLUMNS / (4 * STEPS);
    const int n_blocks = n_columns / (4 * STEPS);
    const int8_t *q[T], *next[T];
    int32_t start[N][BLOCKS][G];
    float scale_of[N][BLOCKS][G], least_of[N][MIN ? BLOCKS : 1][G];
    for (int t = 0; t < T; ++t) {
        const Token x = token_at(p, first + t);
        const int32_t *sum = (STEPS == 4 ? x.sum16 : x.sum32) + first_column / (4 * STEPS);
        q[t] = x.q + first_column;
        next[t] = token_at(p, first + T + t).q + first_column;
        for (int b = 0; b < n_blocks; b += LANES) {  // may read on into the record's next field
            const I sums_of_q = load<I>(sum + b);
            const F d = load<F>(x.d + first_column / 32 + b);
            spread(sums_of_q * -BIAS_OF + DOT_START, &start[t / G][b][t % G]);
            spread(d, &scale_of[t / G][b][t % G]);  // with halves, of twice as many columns as there are
            if constexpr (MIN) spread(to_float(sums_of_q) * d, &least_of[t / G][b][t % G]);
        }
    }
    F total[N][V];
    for (int t = 0; t < N; ++t)
        for (int v = 0; v < V; ++v) total[t][v] = load<F>(sums + (t * V + v) * LANES);
    const uint8_t *codes = panel.codes[0][0];
    const float *scale = panel.scale[0], *min = panel.min[0];
    Fetcher fetcher(ahead, first, least(first + T, p.n_tokens), p.n_tokens, n_blocks);
    for (int b = 0; b < n_blocks; ++b) {
        fetcher.step();
        I dot[N][V];
#pragma GCC unroll 16
        for (int t = 0; t < N; ++t) {
            for (int i = 0; i < G; ++i) __builtin_prefetch(next[G * t + i] + 4 * STEPS * b);
            for (int v = 0; v < V; ++v) dot[t][v] = of_tokens<I>(start[t][b]);
        }
#pragma GCC unroll 8
        for (int j = 0; j < STEPS; j += G) {
#pragma GCC unroll 16
            for (int t = 0; t < N; ++t) {
                const auto x = activations(q + G * t, 4 * (b * STEPS + j));
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    dot[t][v] = panel_dot<SIGNED>(dot[t][v], codes + 4 * ((j + v % G) * PANEL_ROWS + v / G * LANES), x);
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const F of_row = of_rows(scale + v / G * LANES, v % G);
#pragma GCC unroll 16
            for (int t = 0; t < N; ++t) total[t][v] += scaled(dot[t][v], of_row) * of_tokens<F>(scale_of[t][b * STEPS / 8]);
            if constexpr (MIN) {
                const F of_row_min = of_rows(min + v / G * LANES, v % G);
                for (int t = 0; t < N; ++t) total[t][v] += of_row_min * of_tokens<F>(least_of[t][b]);
            }
        }
        codes += 4 * STEPS * PANEL_ROWS, scale += PANEL_ROWS, min += PANEL_ROWS;
    }
    for (int t = 0; t < N; ++t)
        for (int v = 0; v < V; ++v) store(sums + (t * V + v) * LANES, total[t][v]);
}

// Tiles of T tokens, then narrower ones. The last may hold a token twice: its second sums are not stored.
template <class D, int T> void panel_tiles(const Product &p, const Panel &panel, int row, int column, float *sums, int t) {
    const int n_columns = least(p.input->k - column, PANEL_COLUMNS);
    const NextPanel ahead = next_panel<D>(p, row, column);
    for (; t < p.n_tokens - (T > 2 ? T - 2 : 0); t += T) {
        if (column + PANEL_COLUMNS >= p.input->k)  // results are about to be stored, each to a page of its own
            for (int i = t; i < least(t + T, p.n_tokens); ++i) __builtin_prefetch(p.out + i * p.out_stride + row, 1);
        panel_tile<D::is_signed, D::has_min, D::halves ? 4 : 8, BIAS<D>, T>(p, panel, column, n_columns, t, ahead, sums + t * PANEL_ROWS);
    }
    if constexpr (T > 2) panel_tiles<D, T - 2>(p, panel, row, column, sums, t);
}

template <class D> void many_tokens(const Product &p) {
    Panel &panel = *reinterpret_cast<Panel *>(p.scratch);
    float *sums = reinterpret_cast<float *>(p.scratch + (sizeof(Panel) + 63) / 64 * 64);
    for (int row = 0; row < p.n_rows; row += PANEL_ROWS) {
        std::memset(sums, 0, size_t(p.n_tokens + PANEL_TOKENS) * PANEL_ROWS * sizeof(float));
        for (int column = 0; column < p.input->k; column += PANEL_COLUMNS) {
            unpack<D>(p, row, column / 256, panel);
            panel_tiles<D, PANEL_TOKENS>(p, panel, row, column, sums, 0);
        }
        const int n_rows = least(p.n_rows - row, PANEL_ROWS);
        for (int t = 0; t < p.n_tokens; ++t) {
            const float *sum = sums + t / ABREAST * ABREAST * PANEL_ROWS + t % ABREAST;
            for (int r = 0; r < n_rows; ++r) p.out[t * p.out_stride + row + r] = sum[r * ABREAST];
        }
    }
}

template <BlockDecoder D> void product(const Product &p) {
    if (p.n_tokens < PANEL_FROM) few_tokens<D>(p);
    else many_tokens<D>(p);
}

// One block; `scale` and `min` are those of its group. Codes are below 128, so that both kinds pass for signed.
template <class D> INLINE void dequantize_block(const uint8_t *codes, int block, const F8 *scale, F8 min, float *out) {
    for (int i = 0; i < 32; i += LANES) {
        const int s = D::halves ? 2 * block + i / 16 : block;
        store(out + i, (load_int8(codes + i) - float(D::bias)) * scale[s / 8][s % 8] + min[block]);
    }
}

template <BlockDecoder D> void dequantize(const uint8_t *row, int64_t k, float *out) {
    for (int64_t at = 0; at < k; at += 256, row += D::group_bytes) {
        const int n = least(k - at, 256);
        uint8_t copy[D::group_bytes] = {}, codes[32];
        std::memcpy(copy, row, size_t(n) * D::group_bytes / 256);
        F8 s[2], min{};
        D::scale(copy, s);
        if constexpr (D::has_min) min = D::min(copy);
        for (int b = 0; b < n / 32; ++b) {
            store32(codes, D::codes(copy, b));
            dequantize_block<D>(codes, b, s, min, out + at + 32 * b);
        }
    }
}

}  // namespace
