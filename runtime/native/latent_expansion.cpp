// Multi-head latent attention with keys and values expanded per head.
#include <algorithm>

#include "runtime/native/attention.hpp"

namespace sprat {
namespace {

// Rows of k_b that are transposed together: their floats of one column fill a cache line.
constexpr int64_t kTransposedRows = 16;

// k_b of one head, (rank, nope) in blocks, to floats (nope, rank). `rows` has room for
// kTransposedRows rows.
void transpose_k_b(const Isa &isa, const Matrix &k_b, int64_t head, float *rows, float *k_bt) {
    const int64_t rank = k_b.rows, nope = k_b.cols;
    for (int64_t r = 0; r < rank; r += kTransposedRows) {
        const int64_t n_rows = std::min(kTransposedRows, rank - r);
        for (int64_t j = 0; j < n_rows; ++j)
            isa.dequantize[k_b.format](k_b.at(head, r + j), nope, rows + j * nope);
        for (int64_t i = 0; i < nope; ++i)
            for (int64_t j = 0; j < n_rows; ++j) k_bt[i * rank + r + j] = rows[j * nope + i];
    }
}

}  // namespace

// One task per head: it expands the latents block by block, and attends with all queries at once.
void AttentionOps::mla_expanded(const float *q, int64_t n, int dim, const LatentKv &cache,
                                float scale, float *out) {
    const int64_t heads = cache.k_b->n_slices;
    Frame frame = context_.frame();
    float *packed = frame.get<float>(n * heads * dim);
    pack_queries(q, n, int(heads), 1, dim, scale, packed);
    context_.pool.each(heads, [&](int64_t h, int thread) {
        expand_head(packed + h * n * dim, n, dim, cache, h, out, thread);
    });
}

// q (n, dim) of one head; out (n, heads, value_dim).
void AttentionOps::expand_head(const float *q, int64_t n, int dim, const LatentKv &cache,
                               int64_t head, float *out, int thread) {
    const Isa &isa = context_.isa;
    const Matrix &k_b = *cache.k_b, &v_b = *cache.v_b;
    const int64_t heads = k_b.n_slices, rank = k_b.rows, nope = k_b.cols, value_dim = v_b.rows;
    const int64_t stride = pad_to(value_dim, isa.value_lanes);
    Frame frame = context_.frame(thread);
    float *k_bt = frame.get<float>(nope * rank), *v = frame.get<float>(value_dim * rank);
    float *rows = frame.get<float>(kTransposedRows * nope);
    float *sums = frame.get<float>(n * stride), *m = frame.get<float>(n), *l = frame.get<float>(n);
    transpose_k_b(isa, k_b, head, rows, k_bt);
    for (int64_t r = 0; r < value_dim; ++r)
        isa.dequantize[v_b.format](v_b.at(head, r), rank, v + r * rank);
    AttentionTask task{};
    task.q = q;
    task.n_queries = int(n), task.dim = dim, task.value_dim = int(value_dim);
    task.queries_per_token = 1;
    task.first_seen = cache.n_entries - n + 1;
    task.end = cache.n_entries;
    task.keys = task.values = cache.entries;
    task.k_bt = k_bt, task.v_b = v, task.rank = int(rank), task.nope = int(nope);
    task.out = sums, task.m = m, task.l = l;
    task.value_stride = int(stride);
    task.scratch = frame.get<uint8_t>(int64_t(isa.attention_scratch_bytes(task)));
    task.stops = Pool::stops, task.pool = &context_.pool;
    isa.attend(task);
    for (int64_t t = 0; t < n; ++t)
        merge_parts(sums + t * stride, m + t, l + t, 1, 0, 0, int(value_dim),
                    out + (t * heads + head) * value_dim);
}

}  // namespace sprat
