// Attention over a range of cache rows, flash style (arXiv 2205.14135): scores live only as long as their block.
//
// All queries of a task share each block of rows: it is packed to words once, and two products do the rest. For absorbed
// latent attention the queries are all heads of a token (one pass over the latents), for grouped-query attention the
// heads that share a key head. Queries lie along the lanes, so that softmax needs no sum across them.
#pragma once

#include "runtime/native/cache_rows.hpp"
#include "runtime/native/softmax.hpp"

namespace {

constexpr int BLOCK_ROWS = 64;    // keys of 576 numbers and values of 512, in int16: 140 KB, in L2
constexpr int KEY_ROWS = 16;      // with one panel of queries: keys packed and scored before the next, 18 KB, in L1

// One task: the queries of `a` over its rows.
template <class W> class Flash {
  public:
    typedef typename W::Word Word;

    Flash(const Attention &task, uint8_t *scratch)
        : a(task), arena{scratch}, softmax(arena.softmax(task, round_up(task.n_queries, LANES), BLOCK_ROWS)) {
        n_words = round_up(a.dim, LANES * W::NUMBERS) / W::NUMBERS;
        row_stride = round_up(a.rank ? a.rank + a.dim - a.nope : a.dim, LANES * W::NUMBERS);
        value_width = round_up(a.value_stride, LANES * W::NUMBERS);
        queries = arena.columns<W>(a.n_queries, a.dim);
        step = one_panel() ? KEY_ROWS : BLOCK_ROWS;
        keys = arena.take<Word>(int64_t(step) * n_words);
        values = arena.take<Word>(int64_t(BLOCK_ROWS) * a.value_stride / W::NUMBERS);
        weights = arena.take<Word>(BLOCK_ROWS * GEMM_COLUMNS / W::NUMBERS);
        value_words = arena.take<Word>(value_width);
        row = arena.take<float>(row_stride + n_words * W::NUMBERS + value_width);
        if (a.rank) lay_out_expansion();
    }

    size_t scratch_bytes() const { return arena.used; }

    void run() {
        begin();
        const int64_t last_seen = a.first_seen + (a.n_queries - 1) / a.queries_per_token;
        const int64_t end = a.end < last_seen ? a.end : last_seen;
        for (int64_t first = a.begin; first < end; first += BLOCK_ROWS) {
            const int n = least(end - first, BLOCK_ROWS);
            if (a.rank) expand(first, n);
            for (int r = 0; r < n; r += step) {
                pack_rows(first, r, least(n - r, step));
                if (one_panel()) score(first, r, least(n - r, step), 0);
            }
            attend_block(first, n);
        }
        softmax.finish();
    }

  private:
    bool one_panel() const { return queries.columns <= GEMM_COLUMNS; }

    void lay_out_expansion() {
        k_b = arena.columns<W>(a.nope, a.rank), v_b = arena.columns<W>(a.value_dim, a.rank);
        latents = arena.take<Word>(int64_t(BLOCK_ROWS) * k_b.n_words);
        key_rows = arena.take<float>(int64_t(BLOCK_ROWS) * n_words * W::NUMBERS);
        value_rows = arena.take<float>(int64_t(BLOCK_ROWS) * value_width);
    }

    void begin() {
        softmax.begin(queries.columns);
        std::memset(a.out, 0, int64_t(a.n_queries) * a.value_stride * sizeof(float));
        queries.pack(a.q, a.n_queries, a.dim, a.dim, row, keys);  // LANES <= KEY_ROWS rows of words
        if (a.rank) {
            std::memset(value_rows, 0, int64_t(BLOCK_ROWS) * value_width * sizeof(float));
            k_b.pack(a.k_bt, a.nope, a.rank, a.rank, row, latents);
            v_b.pack(a.v_b, a.value_dim, a.rank, a.rank, row, latents);
        }
    }

    // This head's keys [k_b . latent, rope] and values v_b . latent, in float32.
    void expand(int64_t first, int n) {
        const int rope = a.dim - a.nope, key_stride = n_words * W::NUMBERS;
        float scale[BLOCK_ROWS];
        for (int r = 0; r < n; ++r) {
            float *to = key_rows + int64_t(r) * key_stride;
            widen(a.keys, first + r, a.rank + rope, row, row_stride);
            std::memcpy(to + a.nope, row + a.rank, rope * sizeof(float));
            std::memset(to + a.dim, 0, (key_stride - a.dim) * sizeof(float));
            std::memset(row + a.rank, 0, (row_stride - a.rank) * sizeof(float));
            scale[r] = pack_row<W>(row, k_b.n_words * W::NUMBERS, CODE_LIMIT, latents + int64_t(r) * k_b.n_words);
        }
        const Left<W> left{latents, k_b.n_words, 1};
        gemm<W>(n, k_b.n_words, left, k_b.from(0), [&](int r, int c, F x) {
            const F numbers = x * (load<F>(k_b.scale + c) * scale[r]);
            std::memcpy(key_rows + int64_t(r) * key_stride + c, &numbers, least(a.nope - c, LANES) * sizeof(float));
        });
        gemm<W>(n, v_b.n_words, left, v_b.from(0), [&](int r, int c, F x) {
            store(value_rows + int64_t(r) * value_width + c, x * (load<F>(v_b.scale + c) * scale[r]));
        });
    }

    // Row `r` of the block as words; returns its scale.
    float pack_key(int64_t first, int r, Word *to) {
        const int padded = n_words * W::NUMBERS;
        if (a.rank) return pack_row<W>(key_rows + int64_t(r) * padded, padded, CODE_LIMIT, to);
        return pack_stored<W>(a.keys, first + r, a.dim, padded, row, to);
    }
    float pack_value(int64_t first, int r, Word *to) {
        if (a.rank) return pack_row<W>(value_rows + int64_t(r) * value_width, value_width, CODE_LIMIT, to);
        return pack_stored<W>(a.values, first + r, a.value_dim, value_width, row, to);
    }

    // Rows `start` .. `start + n` of the block.
    void pack_rows(int64_t first, int start, int n) {
        const bool shared = !a.rank && a.values.data == a.keys.data;
        for (int r = start; r < start + n; r += W::NUMBERS) {
            const Word *value[W::NUMBERS];
            for (int j = 0; j < W::NUMBERS; ++j) {
                const int at = least(r + j, start + n - 1);  // an odd last row meets itself, with weight 0
                Word *key = keys + int64_t(at - start) * n_words, *to = value_words + j * value_width / W::NUMBERS;
                key_scale[at] = pack_key(first, at, key);
                value_scale[at] = shared ? key_scale[at] : pack_value(first, at, to);
                value[j] = shared ? key : to;
            }
            put_values(value, r / W::NUMBERS);
        }
    }

    // NUMBERS packed rows to where the second product reads them: a word to each column.
    void put_values(const Word *const *rows, int word) {
        for (int c = 0; c < a.value_stride; c += GEMM_COLUMNS) {
            const Word *from[W::NUMBERS];
            for (int j = 0; j < W::NUMBERS; ++j) from[j] = rows[j] + c / W::NUMBERS;
            Word *to = values + in_panels(word, c, BLOCK_ROWS / W::NUMBERS, a.value_stride);
            const int width = a.value_stride - c;
#pragma GCC unroll 4
            for (int v = 0; v < GEMM_COLUMNS; v += LANES)
                if (v < width) store(to + v, W::across(from, v));
        }
    }

    // Queries of a panel from `query` on, with rows `start` .. `start + n` of the block.
    void score(int64_t first, int start, int n, int query) {
        const Left<W> key{keys, n_words, 1, a.keys.data + (first + start + BLOCK_ROWS) * a.keys.stride,
                          4 * n_words};
        Right<W> some = queries.from(query);
        some.columns = least(some.columns, GEMM_COLUMNS);
        gemm<W>(n, n_words, key, some, [&](int r, int c, F x) {
            store(softmax.scores + (start + r) * GEMM_COLUMNS + c, x * (load<F>(queries.scale + query + c) * key_scale[start + r]));
        });
    }

    void attend_block(int64_t first, int n) {
        const Left<W> weight{weights, 1, GEMM_COLUMNS};
        const Right<W> value{values, BLOCK_ROWS / W::NUMBERS, a.value_stride};
        for (int query = softmax.first_panel(first); query < a.n_queries; query += GEMM_COLUMNS) {
            if (!one_panel()) score(first, 0, n, query);
            const int columns = least(queries.columns - query, GEMM_COLUMNS);
            for (int c = 0; c < columns; c += LANES) soften(first, n, query + c, c);
            gemm<W>(least(a.n_queries - query, GEMM_COLUMNS), (n + W::NUMBERS - 1) / W::NUMBERS, weight, value, [&](int r, int c, F x) {
                float *to = a.out + int64_t(query + r) * a.value_stride + c;
                store(to, load<F>(to) * softmax.shrink[r] + x * weight_scale[r]);
            });
        }
    }

    // Weights of LANES queries, packed; the scales of values are part of them.
    void soften(int64_t first, int n, int query, int column) {
        const F heaviest = softmax.soften(first, n, query, column, value_scale);
        const F scale = W::scale(heaviest, code_limit(BLOCK_ROWS)), inverse = scale > all(1e-30f) ? 1.0f / scale : F{};
        store(weight_scale + column, scale);
        for (int r = 0; r < n; r += W::NUMBERS) {
            F numbers[W::NUMBERS];
            for (int j = 0; j < W::NUMBERS; ++j)
                numbers[j] = r + j < n ? load<F>(softmax.scores + (r + j) * GEMM_COLUMNS + column) * inverse : F{};
            store(weights + r / W::NUMBERS * GEMM_COLUMNS + column, W::pack(numbers));
        }
    }

    const Attention &a;
    Arena arena;
    Softmax softmax;
    int n_words, row_stride;           // of a key, and of a row of the cache
    int step;                          // rows that are packed at a time
    int value_width;                   // value_stride in whole registers of words
    Columns<W> queries, k_b, v_b;      // the latter two of expanded attention only
    Word *keys;                        // (step, n_words)
    Word *values;                      // (BLOCK_ROWS / NUMBERS, value_stride)
    Word *weights;                     // (BLOCK_ROWS / NUMBERS, GEMM_COLUMNS)
    Word *value_words;                 // (NUMBERS, value_width / NUMBERS)
    float *row;                        // one widened row, of keys or of values
    Word *latents = nullptr;           // (BLOCK_ROWS, k_b.n_words)
    float *key_rows = nullptr;         // (BLOCK_ROWS, n_words * NUMBERS)
    float *value_rows = nullptr;       // (BLOCK_ROWS, value_width)
    float key_scale[BLOCK_ROWS], value_scale[BLOCK_ROWS];
    float weight_scale[GEMM_COLUMNS];
};

}  // namespace
