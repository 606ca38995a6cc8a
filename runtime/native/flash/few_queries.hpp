// Attention of one token's few queries, in float32, vectorised along head_dim.
//
// With queries along the lanes (flash.hpp) a partly filled register costs a full one: three queries
// as much as sixteen. Here the elements of an entry lie along the lanes instead. A block of entries
// is loaded to float32 once, into the first-level cache, and all queries pass over it there:
// kFewTile queries x four keys at a time for the scores, then kFewTile queries x four registers of
// values.
#pragma once

#include <type_traits>

#include "runtime/native/flash/load_entries.hpp"
#include "runtime/native/flash/scratch_layout.hpp"
#include "runtime/native/gemm/reduce.hpp"

namespace {

// Entries of a block: 32 keys or values of 128 elements are 16 KB in float32, and both fill a
// first-level cache of 32 KB.
constexpr int kFewBlock = 32;
// Entries from the one that is loaded to the one that is prefetched: half a block.
constexpr int kFewPrefetch = 16;
// Queries of a tile: its sums with four keys, four keys and a query fit into the registers (AVX-512
// 4 x 4 sums, AVX2 2 x 4).
constexpr int kFewTile = kAttnNRVectors;

// Most queries: more fill enough lanes of flash.hpp. With lanes for four, tiles of queries there
// are narrow until there are sixteen: eight took 0.4 of the instructions here.
constexpr int kFewQueries = kLanes == 4 ? 8 : kLanes / 2;

class FlashFewQueries {
  public:
    // With more, queries fill enough lanes for flash.hpp; with entries that are keys and values at
    // once (latents), which it packs only once, earlier.
    static bool supports(const AttentionTask &task) {
        const int most = task.values.data == task.keys.data ? kFewQueries / 2 : kFewQueries;
        return !task.rank && task.n_queries == task.queries_per_token && task.n_queries <= most;
    }

    FlashFewQueries(const AttentionTask &task, uint8_t *memory) : task(task), scratch{memory} {
        shared = task.values.data == task.keys.data;
        key_width = round_up(task.dim, kLanes),
        value_width = shared ? key_width : task.value_stride;
        queries = scratch.take<float>(task.n_queries * key_width);
        keys = scratch.take<float>(kFewBlock * key_width);
        values = shared ? keys : scratch.take<float>(kFewBlock * value_width);
        weights = scratch.take<float>(task.n_queries * kFewBlock);
    }

    size_t scratch_bytes() const { return scratch.used; }

    void run() {
        std::memset(task.out, 0, int64_t(task.n_queries) * task.value_stride * sizeof(float));
        for (int q = 0; q < task.n_queries; ++q) {
            task.m[q] = kMasked, task.l[q] = 0;
            std::memset(queries + q * key_width, 0, key_width * sizeof(float));
            std::memcpy(queries + q * key_width, task.q + q * task.dim, task.dim * sizeof(float));
        }
        const int64_t end = task.end < task.first_seen ? task.end : task.first_seen;
        for (int64_t first = task.begin; first < end; first += kFewBlock) {
            if (task.stops && task.stops(task.pool)) break;
            attend_block(first, min(end - first, kFewBlock));
        }
    }

  private:
    void attend_block(int64_t first, int n) {
        for (int r = 0; r < n; ++r) {
            load_and_prefetch(task.keys, first + r, task.dim, keys + r * key_width, key_width);
            if (!shared)
                load_and_prefetch(task.values, first + r, task.value_dim, values + r * value_width,
                                  value_width);
        }
        each_tile([&]<int Q>(std::integral_constant<int, Q>, int query) { score<Q>(n, query); });
        for (int q = 0; q < task.n_queries; ++q) alpha[q] = update_softmax(n, q);
        each_tile(
            [&]<int Q>(std::integral_constant<int, Q>, int query) { add_values<Q>(n, query); });
    }

    // Entries pass faster than the hardware prefetcher brings them by itself.
    static void load_and_prefetch(const KvEntries &entries, int64_t i, int dim, float *to,
                                  int width) {
        const uint8_t *next = entries.data + (i + kFewPrefetch) * entries.stride;
        for (int line = 0; line < entries.stride; line += 64) __builtin_prefetch(next + line);
        load_entry(entries, i, dim, to, width);
    }

    template <class Use> void each_tile(const Use &use) {
        int query = 0;
        for (; query + kFewTile <= task.n_queries; query += kFewTile)
            use(std::integral_constant<int, kFewTile>(), query);
        for (; query + 2 <= task.n_queries; query += 2)
            use(std::integral_constant<int, 2>(), query);
        if (query < task.n_queries) use(std::integral_constant<int, 1>(), query);
    }

    // Scores with four keys at a time; beyond the last key it comes again, and is masked.
    template <int Q> void score(int n, int query) {
        const float *some = queries + query * key_width;
        for (int r = 0; r < n; r += 4) {
            const float *key[4];
            for (int j = 0; j < 4; ++j) key[j] = keys + min(r + j, n - 1) * key_width;
            F total[Q][4] = {};
            for (int i = 0; i < key_width; i += kLanes)
#pragma GCC unroll 4
                for (int q = 0; q < Q; ++q) {
                    const F x = load<F>(some + q * key_width + i);
#pragma GCC unroll 4
                    for (int j = 0; j < 4; ++j) total[q][j] += x * load<F>(key[j] + i);
                }
            for (int q = 0; q < Q; ++q)
                reduce_add_rows(total[q], weights + (query + q) * kFewBlock + r);
        }
    }

    // The online softmax of one query (online_softmax.hpp): scores become weights; returns alpha.
    float update_softmax(int n, int query) {
        float *p = weights + query * kFewBlock, &m = task.m[query];
        for (int r = n; r % kLanes; ++r) p[r] = kMasked;
        F top = broadcast(m), sums{};
        for (int r = 0; r < n; r += kLanes) top = max(top, load<F>(p + r));
        const float before = m;
        m = reduce_max(top);
        for (int r = 0; r < n; r += kLanes) {
            const F weight = exp(load<F>(p + r) - m);
            sums += weight;
            store(p + r, weight);
        }
        const float rescale = exp(broadcast(before - m))[0];
        task.l[query] = task.l[query] * rescale + reduce_add(sums);
        return rescale;
    }

    // out = out * alpha + weights . values
    template <int Q> void add_values(int n, int query) {
        int column = 0;
        for (; column + 4 * kLanes <= task.value_stride; column += 4 * kLanes)
            add_values_columns<Q, 4>(n, query, column);
        for (; column < task.value_stride; column += kLanes)
            add_values_columns<Q, 1>(n, query, column);
    }

    template <int Q, int V> void add_values_columns(int n, int query, int column) {
        float *out = task.out + int64_t(query) * task.value_stride + column;
        const float *value = values + column, *weight = weights + query * kFewBlock;
        F total[Q][V];
        for (int q = 0; q < Q; ++q)
            for (int v = 0; v < V; ++v)
                total[q][v] = load<F>(out + q * task.value_stride + v * kLanes) * alpha[query + q];
        for (int r = 0; r < n; ++r, value += value_width)
#pragma GCC unroll 4
            for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    total[q][v] += load<F>(value + v * kLanes) * weight[q * kFewBlock + r];
        for (int q = 0; q < Q; ++q)
            for (int v = 0; v < V; ++v)
                store(out + q * task.value_stride + v * kLanes, total[q][v]);
    }

    const AttentionTask &task;
    ScratchLayout scratch;
    bool shared;  // keys and values are the same entries
    int key_width, value_width;
    float *queries;  // (n_queries, key_width)
    float *keys;     // (kFewBlock, key_width)
    float *values;   // (kFewBlock, value_width)
    float *weights;  // (n_queries, kFewBlock)
    float alpha[kFewQueries];
};

}  // namespace
