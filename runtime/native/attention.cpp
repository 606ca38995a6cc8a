// Attention split over threads: by key head and by queries where there are enough of them, and by cache rows where
// there are not (one token at a long context). The parts of one query are merged by their largest scores. How the work
// is split depends on its shape alone, so that results have the same bits with any number of threads.
#include <algorithm>
#include <cmath>

#include "runtime/native/kernels.hpp"

namespace sprat {

// Packed queries of all key heads and how to split their work.
struct KernelSet::Pass {
    const float *q;  // (kv_heads, n * group, dim), scaled
    int64_t n;
    int group, dim, value_dim;
    KernelSet::Heads cache;
};

namespace {

constexpr int64_t QUERIES = 192;     // of one piece: their sums (192 x 128 numbers, 96 KB) stay in L2
constexpr int64_t LEAST_ROWS = 128;  // of one piece: shorter ones cost more to merge than they save
constexpr int64_t TRANSPOSED = 16;   // rows of k_b: a line of its transposed rows
constexpr int64_t PIECES = 8;        // at least, where there are as many rows: for the cores of a phone
constexpr int64_t MERGED = 4;        // queries whose parts a thread merges in a row

Rows from(Rows rows, int64_t bytes) {
    rows.data += bytes;
    return rows;
}

// Sums of one query's parts, each relative to its own largest score, into one normalised result.
void merge(const float *sums, const float *largest, const float *total, int64_t n_parts, int64_t part_sums,
           int64_t part_queries, int value_dim, float *out) {
    float top = largest[0], all = 0;
    for (int64_t p = 1; p < n_parts; ++p) top = std::max(top, largest[p * part_queries]);
    for (int64_t p = 0; p < n_parts; ++p) all += std::exp(largest[p * part_queries] - top) * total[p * part_queries];
    std::fill_n(out, value_dim, 0.0f);
    for (int64_t p = 0; p < n_parts; ++p) {
        const float factor = std::exp(largest[p * part_queries] - top) / all;
        for (int i = 0; i < value_dim; ++i) out[i] += factor * sums[p * part_sums + i];
    }
}

// (n, heads, dim) to (kv_heads, n * group, dim), times scale.
void pack_queries(const float *q, int64_t n, int kv_heads, int group, int dim, float scale, float *out) {
    for (int h = 0; h < kv_heads; ++h)
        for (int64_t t = 0; t < n; ++t)
            for (int64_t i = 0, first = (t * kv_heads + h) * group * dim; i < int64_t(group) * dim; ++i)
                *out++ = q[first + i] * scale;
}

}  // namespace

// mixed (kv_heads, n * group, value_dim)
void KernelSet::attend(const Pass &pass, float *mixed) {
    const int64_t n_queries = pass.n * pass.group, stride = pad_to(pass.value_dim, isa_.value_lanes);
    const int64_t step = std::max<int64_t>(1, QUERIES / pass.group) * pass.group;
    const int64_t n_chunks = (n_queries + step - 1) / step, n_pieces = n_chunks * pass.cache.kv_heads;
    const int64_t wanted = (PIECES + n_pieces - 1) / n_pieces;
    const int64_t n_parts = std::clamp<int64_t>(pass.cache.n_rows / LEAST_ROWS, 1, wanted);
    const int64_t part_rows = pad_to((pass.cache.n_rows + n_parts - 1) / n_parts, 64);
    const int64_t all_queries = pass.cache.kv_heads * n_queries;
    float *sums = partial_.get<float>(n_parts * all_queries * (stride + 2));
    float *largest = sums + n_parts * all_queries * stride, *total = largest + n_parts * all_queries;
    pool_.each(n_parts * n_pieces, [&](int64_t i, int thread) {
        const int64_t part = i % n_parts, head = i / n_parts / n_chunks, first = i / n_parts % n_chunks * step;
        const int64_t query = head * n_queries + first, at = part * all_queries + query;
        Attention a{};
        a.q = pass.q + query * pass.dim;
        a.n_queries = int(std::min(step, n_queries - first));
        a.dim = pass.dim, a.value_dim = pass.value_dim;
        a.queries_per_token = pass.group;
        a.first_seen = pass.cache.n_rows - pass.n + first / pass.group + 1;
        a.begin = part * part_rows, a.end = std::min(pass.cache.n_rows, a.begin + part_rows);
        a.keys = from(pass.cache.keys, head * pass.cache.key_head);
        a.values = from(pass.cache.values, head * pass.cache.value_head);
        a.out = sums + at * stride, a.largest = largest + at, a.total = total + at;
        a.value_stride = int(stride);
        a.scratch = pool_.scratch(thread, isa_.attention_scratch_bytes(a));
        isa_.attend(a);
    });
    pool_.each((all_queries + MERGED - 1) / MERGED, n_parts * all_queries * stride * int64_t(sizeof(float)), [&](int64_t i, int) {
        for (int64_t query = i * MERGED; query < std::min(all_queries, (i + 1) * MERGED); ++query)
            merge(sums + query * stride, largest + query, total + query, n_parts, all_queries * stride, all_queries,
                  pass.value_dim, mixed + query * pass.value_dim);
    });
}

void KernelSet::gqa(const float *q, int64_t n, int heads, int dim, const Heads &cache, float scale, float *out) {
    const int group = heads / cache.kv_heads;
    float *packed = queries_.get<float>(n * heads * dim);
    float *mixed = mixed_.get<float>(n * heads * dim);
    pack_queries(q, n, cache.kv_heads, group, dim, scale, packed);
    attend({packed, n, group, dim, dim, cache}, mixed);
    for (int64_t h = 0; h < cache.kv_heads; ++h)
        for (int64_t t = 0; t < n; ++t)
            std::copy_n(mixed + (h * n + t) * group * dim, group * dim, out + (t * cache.kv_heads + h) * group * dim);
}

// All heads share the latents: one key head, whose values are the first `rank` numbers of its keys.
void KernelSet::mla_absorbed(const float *q, int64_t n, int dim, const Latents &latents, float scale, float *out) {
    const Matrix &k_b = *latents.k_b, &v_b = *latents.v_b;
    const int64_t heads = k_b.n_slices, rank = k_b.rows, nope = k_b.cols, rope = dim - nope, row = rank + rope;
    float *by_head = mixed_.get<float>(heads * n * std::max(nope, rank));  // (heads, n, nope), later (heads, n, rank)
    float *packed = queries_.get<float>(n * heads * row);                  // (n * heads, row)
    for (int64_t h = 0; h < heads; ++h)
        for (int64_t t = 0; t < n; ++t) {
            const float *from = q + (t * heads + h) * dim;
            std::copy_n(from, nope, by_head + (h * n + t) * nope);
            for (int64_t i = 0; i < rope; ++i) packed[(t * heads + h) * row + rank + i] = from[nope + i] * scale;
        }
    for (int64_t i = 0; i < heads * n * nope; ++i) by_head[i] *= scale;
    const Input nopes = prepare(inputs_, by_head, heads * n, nope, wants_quantized(k_b));
    pool_.each(heads, n * heads * rank * int64_t(k_b.row_bytes), [&](int64_t h, int thread) {
        product(k_b, h, 0, rank, nopes.from(h * n), nullptr, n, packed + h * row, heads * row, thread);
    });
    Heads cache{latents.rows, latents.rows, 0, 0, 1, latents.n_rows};
    float *mixed = hidden_.get<float>(n * heads * rank);
    attend({packed, n, int(heads), int(row), int(rank), cache}, mixed);
    for (int64_t h = 0; h < heads; ++h)
        for (int64_t t = 0; t < n; ++t) std::copy_n(mixed + (t * heads + h) * rank, rank, by_head + (h * n + t) * rank);
    const Input sums = prepare(inputs_, by_head, heads * n, rank, wants_quantized(v_b));
    pool_.each(heads, n * heads * v_b.rows * int64_t(v_b.row_bytes), [&](int64_t h, int thread) {
        product(v_b, h, 0, v_b.rows, sums.from(h * n), nullptr, n, out + h * v_b.rows, heads * v_b.rows, thread);
    });
}

// Every head expands the latents to its own keys and values, block by block, and attends with all queries at once.
void KernelSet::mla_expanded(const float *q, int64_t n, int dim, const Latents &latents, float scale, float *out) {
    const Matrix &k_b = *latents.k_b, &v_b = *latents.v_b;
    const int64_t heads = k_b.n_slices, rank = k_b.rows, nope = k_b.cols, value_dim = v_b.rows;
    const int64_t stride = pad_to(value_dim, isa_.value_lanes);
    float *packed = queries_.get<float>(n * heads * dim);
    pack_queries(q, n, int(heads), 1, dim, scale, packed);
    pool_.each(heads, [&](int64_t h, int thread) {
        float *k_bt = staging_[thread].get<float>((nope + value_dim) * rank + TRANSPOSED * nope + n * (stride + 2));
        float *v = k_bt + nope * rank, *rows = v + value_dim * rank, *sums = rows + TRANSPOSED * nope;
        for (int64_t r = 0; r < rank; r += TRANSPOSED) {
            const int64_t n_rows = std::min(TRANSPOSED, rank - r);
            for (int64_t j = 0; j < n_rows; ++j)
                isa_.dequantize[k_b.format](k_b.data + (h * rank + r + j) * k_b.row_bytes, nope, rows + j * nope);
            for (int64_t i = 0; i < nope; ++i)
                for (int64_t j = 0; j < n_rows; ++j) k_bt[i * rank + r + j] = rows[j * nope + i];
        }
        for (int64_t r = 0; r < value_dim; ++r)
            isa_.dequantize[v_b.format](v_b.data + (h * value_dim + r) * v_b.row_bytes, rank, v + r * rank);
        Attention a{};
        a.q = packed + h * n * dim;
        a.n_queries = int(n), a.dim = dim, a.value_dim = int(value_dim);
        a.queries_per_token = 1;
        a.first_seen = latents.n_rows - n + 1;
        a.end = latents.n_rows;
        a.keys = a.values = latents.rows;
        a.k_bt = k_bt, a.v_b = v, a.rank = int(rank), a.nope = int(nope);
        a.out = sums, a.largest = sums + n * stride, a.total = a.largest + n;
        a.value_stride = int(stride);
        a.scratch = pool_.scratch(thread, isa_.attention_scratch_bytes(a));
        isa_.attend(a);
        for (int64_t t = 0; t < n; ++t)
            merge(sums + t * stride, a.largest + t, a.total + t, 1, 0, 0, int(value_dim), out + (t * heads + h) * value_dim);
    });
}

}  // namespace sprat
