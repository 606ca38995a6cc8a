// Attention of one token's few queries, in float32: the numbers of a row lie along the lanes. With queries along the lanes
// (attend.hpp), three of them cost as much as a register holds.
//
// A block of rows is widened once into L1, and all queries pass over it there: FEW_TILE queries with four rows at a time
// for the scores, then with as many registers of values.
#pragma once

#include <type_traits>

#include "runtime/native/cache_rows.hpp"
#include "runtime/native/softmax.hpp"
#include "runtime/native/sums.hpp"

namespace {

constexpr int FEW_BLOCK = 32;           // rows: keys or values of 128 numbers, 16 KB
constexpr int FEW_AHEAD = 16;           // rows from the one that is widened to the one that is fetched
constexpr int FEW_TILE = GEMM_VECTORS;  // four rows' sums each fit beside rows and queries into the registers

class FewFlash {
  public:
    // Beyond these, queries fill enough lanes; with rows that are keys and values at once, earlier.
    static bool takes(const Attention &a) {
        const int most = a.values.data == a.keys.data ? LANES / 4 : LANES / 2;
        return !a.rank && a.n_queries == a.queries_per_token && a.n_queries <= most;
    }

    FewFlash(const Attention &task, uint8_t *scratch) : a(task), arena{scratch} {
        shared = a.values.data == a.keys.data;
        key_width = round_up(a.dim, LANES), value_width = shared ? key_width : a.value_stride;
        queries = arena.take<float>(a.n_queries * key_width);
        keys = arena.take<float>(FEW_BLOCK * key_width);
        values = shared ? keys : arena.take<float>(FEW_BLOCK * value_width);
        weights = arena.take<float>(a.n_queries * FEW_BLOCK);
    }

    size_t scratch_bytes() const { return arena.used; }

    void run() {
        std::memset(a.out, 0, int64_t(a.n_queries) * a.value_stride * sizeof(float));
        for (int q = 0; q < a.n_queries; ++q) {
            a.largest[q] = MASKED, a.total[q] = 0;
            std::memset(queries + q * key_width, 0, key_width * sizeof(float));
            std::memcpy(queries + q * key_width, a.q + q * a.dim, a.dim * sizeof(float));
        }
        const int64_t end = a.end < a.first_seen ? a.end : a.first_seen;
        for (int64_t first = a.begin; first < end; first += FEW_BLOCK) attend_block(first, least(end - first, FEW_BLOCK));
    }

  private:
    void attend_block(int64_t first, int n) {
        for (int r = 0; r < n; ++r) {
            take(a.keys, first + r, a.dim, keys + r * key_width, key_width);
            if (!shared) take(a.values, first + r, a.value_dim, values + r * value_width, value_width);
        }
        each_tile([&]<int Q>(std::integral_constant<int, Q>, int query) { score<Q>(n, query); });
        for (int q = 0; q < a.n_queries; ++q) shrink[q] = soften(n, q);
        each_tile([&]<int Q>(std::integral_constant<int, Q>, int query) { mix<Q>(n, query); });
    }

    // Rows pass faster than the hardware fetches them by itself.
    static void take(const Rows &rows, int64_t r, int dim, float *to, int width) {
        const uint8_t *next = rows.data + (r + FEW_AHEAD) * rows.stride;
        for (int line = 0; line < rows.stride; line += 64) __builtin_prefetch(next + line);
        widen(rows, r, dim, to, width);
    }

    template <class Use> void each_tile(const Use &use) {
        int query = 0;
        for (; query + FEW_TILE <= a.n_queries; query += FEW_TILE) use(std::integral_constant<int, FEW_TILE>(), query);
        for (; query + 2 <= a.n_queries; query += 2) use(std::integral_constant<int, 2>(), query);
        if (query < a.n_queries) use(std::integral_constant<int, 1>(), query);
    }

    // Four rows at a time; beyond the last row it comes again, and is masked.
    template <int Q> void score(int n, int query) {
        const float *some = queries + query * key_width;
        for (int r = 0; r < n; r += 4) {
            const float *key[4];
            for (int j = 0; j < 4; ++j) key[j] = keys + least(r + j, n - 1) * key_width;
            F total[Q][4] = {};
            for (int i = 0; i < key_width; i += LANES)
#pragma GCC unroll 4
                for (int q = 0; q < Q; ++q) {
                    const F x = load<F>(some + q * key_width + i);
#pragma GCC unroll 4
                    for (int j = 0; j < 4; ++j) total[q][j] += x * load<F>(key[j] + i);
                }
            for (int q = 0; q < Q; ++q) sum_rows(total[q], weights + (query + q) * FEW_BLOCK + r);
        }
    }

    // Scores become weights; returns what the sums so far shrink by.
    float soften(int n, int query) {
        float *weight = weights + query * FEW_BLOCK, &largest = a.largest[query];
        for (int r = n; r % LANES; ++r) weight[r] = MASKED;
        F top = all(largest), sums{};
        for (int r = 0; r < n; r += LANES) top = max(top, load<F>(weight + r));
        const float before = largest;
        largest = max_of(top);
        for (int r = 0; r < n; r += LANES) {
            const F softened = exp(load<F>(weight + r) - largest);
            sums += softened;
            store(weight + r, softened);
        }
        const float less = exp(all(before - largest))[0];
        a.total[query] = a.total[query] * less + sum(sums);
        return less;
    }

    template <int Q> void mix(int n, int query) {
        int column = 0;
        for (; column + 4 * LANES <= a.value_stride; column += 4 * LANES) mix_columns<Q, 4>(n, query, column);
        for (; column < a.value_stride; column += LANES) mix_columns<Q, 1>(n, query, column);
    }

    template <int Q, int V> void mix_columns(int n, int query, int column) {
        float *out = a.out + int64_t(query) * a.value_stride + column;
        const float *value = values + column, *weight = weights + query * FEW_BLOCK;
        F total[Q][V];
        for (int q = 0; q < Q; ++q)
            for (int v = 0; v < V; ++v) total[q][v] = load<F>(out + q * a.value_stride + v * LANES) * shrink[query + q];
        for (int r = 0; r < n; ++r, value += value_width)
#pragma GCC unroll 4
            for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) total[q][v] += load<F>(value + v * LANES) * weight[q * FEW_BLOCK + r];
        for (int q = 0; q < Q; ++q)
            for (int v = 0; v < V; ++v) store(out + q * a.value_stride + v * LANES, total[q][v]);
    }

    const Attention &a;
    Arena arena;
    bool shared;         // keys and values are the same rows
    int key_width, value_width;
    float *queries;      // (n_queries, key_width)
    float *keys;         // (FEW_BLOCK, key_width)
    float *values;       // (FEW_BLOCK, value_width)
    float *weights;      // (n_queries, FEW_BLOCK)
    float shrink[LANES];
};

}  // namespace
