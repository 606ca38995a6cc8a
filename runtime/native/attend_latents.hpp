// Absorbed latent attention over rows in int8, in products of bytes: four to a lane, where words hold two.
//
// A row's codes are read where they lie, and meet the queries' codes; every group of columns has scales of its own. The
// part that rotates is halves, and stays in words. Weights become bytes as well, a set for each group, since a value's
// scale belongs to its row, which the second product sums over.
#pragma once

#include "runtime/native/cache_rows.hpp"
#include "runtime/native/softmax.hpp"

namespace {

constexpr int LATENT_GROUP = 128;
constexpr int LATENT_ROWS = 128;  // of a block: values of 512 numbers, 64 KB, in L2; of one panel 8 KB, in L1
constexpr int GROUP_WORDS = LATENT_GROUP / 4, ROW_WORDS = LATENT_ROWS / 4;

// Rows of a cache, as they lie there, times queries.
template <class D> struct KeyBytes {
    typedef int32_t Word;
    typedef I V;
    static INLINE I dot(I total, I key, I query) { return D::dot(total, query, key); }
    static INLINE F number(I total) { return to_float(total); }
};

// Weights of four rows times their values.
template <class D> struct ValueBytes {
    typedef int32_t Word;
    typedef I V;
    static INLINE I dot(I total, I weights, I values) { return D::dot(total, weights, values); }
    static INLINE F number(I total) { return to_float(total); }
};

template <class D> class LatentFlash {
  public:
    static bool takes(const Attention &a) {
        const bool aligned = a.keys.stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.keys.data) % 4 == 0;
        return !a.rank && !a.keys.floats && a.values.data == a.keys.data && a.keys.group == LATENT_GROUP && aligned &&
               a.keys.n_int8 == a.value_dim && a.value_dim % LATENT_GROUP == 0;
    }

    LatentFlash(const Attention &task, uint8_t *scratch)
        : a(task), n_groups(task.keys.n_groups()), arena{scratch},
          softmax(arena.softmax(task, round_up(task.n_queries, LANES), LATENT_ROWS)),
          ropes(arena.columns<PairWords>(task.n_queries, task.dim - task.value_dim)) {
        queries = arena.take<int32_t>(int64_t(ropes.columns) * a.value_dim / 4);
        query_scale = arena.take<float>(ropes.columns * n_groups);
        rope_keys = arena.take<int32_t>(LATENT_ROWS * ropes.n_words);
        values = arena.take<int32_t>(int64_t(ROW_WORDS) * a.value_dim);
        weights = arena.take<int32_t>(ROW_WORDS * GEMM_COLUMNS * n_groups);
        weight_scale = arena.take<float>(GEMM_COLUMNS * n_groups);
        row_scale = arena.take<float>(LATENT_ROWS * n_groups), row_zero = arena.take<float>(LATENT_ROWS * n_groups);
        largest_scale = arena.take<float>(n_groups);
        space = arena.take<uint8_t>(LANES * a.value_dim + 4 * 2 * ropes.n_words);
    }

    size_t scratch_bytes() const { return arena.used; }

    void run() {
        begin();
        const int64_t last_seen = a.first_seen + (a.n_queries - 1) / a.queries_per_token;
        const int64_t end = a.end < last_seen ? a.end : last_seen;
        for (int64_t first = a.begin; first < end; first += LATENT_ROWS) {
            const int n = least(end - first, LATENT_ROWS);
            rows = a.keys.data + first * a.keys.stride;
            take_scales(n);
            take_ropes(n);
            take_values(n);
            for (int query = softmax.first_panel(first); query < a.n_queries; query += GEMM_COLUMNS) {
                score(n, query);
                for (int c = 0; c < least(ropes.columns - query, GEMM_COLUMNS); c += LANES) soften(first, n, query + c, c);
                mix(n, query);
            }
        }
        softmax.finish();
        for (int i = 0; i < a.n_queries; ++i) sort_columns(a.out + int64_t(i) * a.value_stride);
    }

  private:
    void begin() {
        softmax.begin(ropes.columns);
        std::memset(a.out, 0, int64_t(a.n_queries) * a.value_stride * sizeof(float));
        float *row = reinterpret_cast<float *>(space);
        ropes.pack(a.q + a.value_dim, a.n_queries, a.dim - a.value_dim, a.dim, row, rope_keys);  // LANES rows of words
        for (int first = 0; first < ropes.columns; first += LANES) pack_queries(first);
        for (float &x : ones) x = 1;
    }

    // LANES queries as codes, a scale for each group, transposed to a word of four for each.
    void pack_queries(int first) {
        for (int i = 0; i < LANES; ++i)
            for (int g = 0; g < n_groups; ++g) {
                uint8_t *to = space + i * a.value_dim + g * LATENT_GROUP;
                query_scale[g * ropes.columns + first + i] = first + i < a.n_queries ? pack_group(first + i, g, to) : 0;
            }
        for (int i = 0; i < a.value_dim / 4; i += 4) {
            I four[4];
            columns4(space + 4 * i, a.value_dim, four);
            int32_t *group = queries + i / GROUP_WORDS * GROUP_WORDS * ropes.columns;
            for (int j = 0; j < 4; ++j) store(group + in_panels(i % GROUP_WORDS + j, first, GROUP_WORDS, ropes.columns), four[j]);
        }
    }

    float pack_group(int query, int group, uint8_t *to) const {
        const float *x = a.q + int64_t(query) * a.dim + group * LATENT_GROUP;
        const float scale = PairWords::scale(x, LATENT_GROUP, 127), inverse = inverse_of(scale);
        for (int i = 0; i < LATENT_GROUP; i += LANES) {
            const I codes = (I)(load<F>(x + i) * inverse + MAGIC) + D::ZERO;
            store(to + i, __builtin_convertvector(codes, Bytes));
        }
        return scale;
    }

    // Scales of the block's rows, and what a query's zero adds to their products.
    void take_scales(int n) {
        std::memset(largest_scale, 0, n_groups * sizeof(float));
        for (int r = 0; r < n; ++r) {
            const uint8_t *row = rows + r * a.keys.stride;
            for (int g = 0; g < n_groups; ++g) {
                const float scale = half_at(row + a.keys.scales_at(), g);
                row_scale[g * LATENT_ROWS + r] = scale;
                row_zero[g * LATENT_ROWS + r] = float(D::ZERO * load<int16_t>(row + a.keys.sums_at() + 2 * g));
                largest_scale[g] = scalar_max(largest_scale[g], scale);
            }
        }
    }

    void take_ropes(int n) {
        const int rope = a.dim - a.value_dim, padded = 2 * ropes.n_words;
        for (int r = 0; r < n; ++r) {
            const uint16_t *halves = reinterpret_cast<const uint16_t *>(rows + r * a.keys.stride + a.keys.halves_at());
            rope_scale[r] = largest_half(halves, rope) / CODE_LIMIT;
            pack_halves(halves, rope, padded, inverse_of(rope_scale[r]), rope_keys + r * ropes.n_words);
        }
    }

    // Four rows of a column to a word; odd last rows meet themselves, with weight 0.
    void take_values(int n) {
        for (int r = 0; r < n; r += 4) {
            for (int c = 0; c < a.value_dim; c += 4 * LANES) {
                const uint8_t *four[4];
                for (int j = 0; j < 4; ++j) four[j] = rows + least(r + j, n - 1) * a.keys.stride + c;
                I words[4];
                D::across(four, words);
                int32_t *group = values + c / LATENT_GROUP * LATENT_GROUP * ROW_WORDS;
                for (int j = 0; j < 4; ++j)
                    store(group + in_panels(r / 4, c % LATENT_GROUP + j * LANES, ROW_WORDS, LATENT_GROUP), words[j]);
            }
        }
    }

    void score(int n, int query) {
        const int columns = least(ropes.columns - query, GEMM_COLUMNS);
        const uint8_t *next = rows + LATENT_ROWS * a.keys.stride;
        for (int g = 0; g < n_groups; ++g) {
            const Left<KeyBytes<D>> key{reinterpret_cast<const int32_t *>(rows + g * LATENT_GROUP), a.keys.stride / 4, 1,
                                           next + g * LATENT_GROUP * GEMM_TALL, a.keys.stride};
            const Right<KeyBytes<D>> some{queries + (g * ropes.columns + query) * GROUP_WORDS, GROUP_WORDS, columns};
            const float *scale = query_scale + g * ropes.columns + query;
            const float *of_row = row_scale + g * LATENT_ROWS, *zero = row_zero + g * LATENT_ROWS;
            gemm<KeyBytes<D>>(n, GROUP_WORDS, key, some, [&](int r, int c, F x) {
                add_score(r, c, (x - zero[r]) * (load<F>(scale + c) * of_row[r]), g == 0);
            });
        }
        Right<PairWords> some = ropes.from(query);
        some.columns = columns;
        const Left<PairWords> rope{rope_keys, ropes.n_words, 1, next + a.value_dim * GEMM_TALL, a.keys.stride};
        gemm<PairWords>(n, ropes.n_words, rope, some, [&](int r, int c, F x) {
            add_score(r, c, x * (load<F>(ropes.scale + query + c) * rope_scale[r]), false);
        });
    }

    INLINE void add_score(int r, int c, F x, bool first) {
        float *to = softmax.scores + r * GEMM_COLUMNS + c;
        store(to, first ? x : load<F>(to) + x);
    }

    // Weights of LANES queries as bytes, times each group's scales of the rows.
    void soften(int64_t first, int n, int query, int column) {
        const F heaviest = softmax.soften(first, n, query, column, ones);
        for (int g = 0; g < n_groups; ++g) {
            const F scale = heaviest * (largest_scale[g] / float(D::LARGEST));
            const F inverse = scale > all(1e-30f) ? 1.0f / scale : F{};
            store(weight_scale + g * GEMM_COLUMNS + column, scale);
            int32_t *to = weights + g * ROW_WORDS * GEMM_COLUMNS + column;
            for (int r = 0; r < n; r += 4, to += GEMM_COLUMNS)
                store(to, four_weights(r, n, column, row_scale + g * LATENT_ROWS, inverse));
        }
    }

    I four_weights(int r, int n, int column, const float *of_row, F inverse) const {
        I word{};
        for (int j = 0; j < 4 && r + j < n; ++j) {
            const F weight = load<F>(softmax.scores + (r + j) * GEMM_COLUMNS + column) * (inverse * of_row[r + j]);
            word |= ((I)(weight + MAGIC) & 0xff) << (8 * j);
        }
        return word;
    }

    void mix(int n, int query) {
        for (int g = 0; g < n_groups; ++g) {
            const Left<ValueBytes<D>> weight{weights + g * ROW_WORDS * GEMM_COLUMNS, 1, GEMM_COLUMNS};
            const Right<ValueBytes<D>> value{values + g * LATENT_GROUP * ROW_WORDS, ROW_WORDS, LATENT_GROUP};
            const float *scale = weight_scale + g * GEMM_COLUMNS;
            float *out = a.out + int64_t(query) * a.value_stride + g * LATENT_GROUP;
            gemm<ValueBytes<D>>(least(a.n_queries - query, GEMM_COLUMNS), (n + 3) / 4, weight, value, [&](int r, int c, F x) {
                float *to = out + r * a.value_stride + c;
                store(to, load<F>(to) * softmax.shrink[r] + x * scale[r]);
            });
        }
    }

    // Four registers of values hold columns 16 l + 4 i + 0 .. 3 of quarter l in register i.
    void sort_columns(float *row) const {
        for (int c = 0; c < a.value_dim; c += 4 * LANES) {
            float four[4 * LANES];
            std::memcpy(four, row + c, sizeof four);
            for (int i = 0; i < 4; ++i)
                for (int l = 0; l < LANES / 4; ++l) std::memcpy(row + c + 16 * l + 4 * i, four + i * LANES + 4 * l, 4 * sizeof(float));
        }
    }

    static constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, and leaves it in the low bits

    const Attention &a;
    int n_groups;
    Arena arena;
    Softmax softmax;
    Columns<PairWords> ropes;          // of the queries
    int32_t *queries;                  // (n_groups, GROUP_WORDS, columns)
    float *query_scale;                // (n_groups, columns)
    const uint8_t *rows;               // of the block
    float *row_scale, *row_zero;       // (n_groups, LATENT_ROWS)
    float *largest_scale;              // (n_groups): of a block's rows
    int32_t *rope_keys;                // (LATENT_ROWS, ropes.n_words)
    int32_t *values;                   // (n_groups, ROW_WORDS, LATENT_GROUP)
    int32_t *weights;                  // (n_groups, ROW_WORDS, GEMM_COLUMNS)
    float *weight_scale;               // (n_groups, GEMM_COLUMNS)
    uint8_t *space;
    float rope_scale[LATENT_ROWS], ones[LATENT_ROWS];
};

}  // namespace
