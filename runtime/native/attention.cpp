// Attention split over threads: by key head and by queries where there are enough of them, and by
// KV entries where there are not (one token at a long context; "split K", as Flash-Decoding does).
// The parts of one query are merged by their m. The split depends on the shape of the work alone,
// so that results have the same bits with any number of threads.
#include "runtime/native/attention.hpp"

#include <algorithm>
#include <cmath>

namespace sprat {

// Packed queries of all key heads, and what they attend to.
struct AttentionOps::Pass {
    const float *q;  // (kv_heads, n * group, dim), scaled
    int64_t n;
    int group, dim, value_dim;
    GroupedKv cache;
};

namespace {

// Queries of one task. Their sums of 128 elements are 96 KB, which a second-level cache of 256 KB
// or more holds beside a block of entries; each entry that is packed serves all of them.
constexpr int64_t kQueryTile = 192;
// KV entries of one task: shorter parts cost more to merge than a second thread saves.
constexpr int64_t kMinEntriesPerTask = 128;
// Tasks at least, where there are entries enough: one for each core of a phone.
constexpr int64_t kMinTasks = 8;
// Queries that a thread merges at a time: one is too little to hand out.
constexpr int64_t kMergeBatch = 4;
// Parts begin at whole blocks of entries (kBlockEntries of flash/flash.hpp).
constexpr int64_t kPartMultiple = 64;
// Fewer tokens than this attend one by one, so that the result of a token does not depend on those
// that are computed with it: speculative decoding has the bits of decoding token by token. Products
// have them below kMinGemmTokens of every instruction set, which this equals.
constexpr int64_t kMinTokensTogether = 6;

KvEntries offset(KvEntries entries, int64_t n_bytes) {
    entries.data += n_bytes;
    return entries;
}

// Token `t` of the last `n`, alone: `attend` gets it and the entries up to its own.
template <class Attend>
void one_by_one(const GroupedKv &cache, int64_t n, const Attend &attend) {
    for (int64_t t = 0; t < n; ++t) {
        GroupedKv seen = cache;
        seen.n_entries -= n - 1 - t;
        attend(t, seen);
    }
}

}  // namespace

// FlashAttention's merge: weights of part p are relative to m_p, so they count exp(m_p - m) times.
void merge_parts(const float *sums, const float *m, const float *l, int64_t n_parts,
                 int64_t part_sums, int64_t part_queries, int value_dim, float *out) {
    float top = m[0], all = 0;
    for (int64_t p = 1; p < n_parts; ++p) top = std::max(top, m[p * part_queries]);
    for (int64_t p = 0; p < n_parts; ++p)
        all += std::exp(m[p * part_queries] - top) * l[p * part_queries];
    std::fill_n(out, value_dim, 0.0f);
    for (int64_t p = 0; p < n_parts; ++p) {
        const float factor = std::exp(m[p * part_queries] - top) / all;
        for (int i = 0; i < value_dim; ++i) out[i] += factor * sums[p * part_sums + i];
    }
}

void pack_queries(const float *q, int64_t n, int kv_heads, int group, int dim, float scale,
                  float *out) {
    for (int h = 0; h < kv_heads; ++h)
        for (int64_t t = 0; t < n; ++t)
            for (int64_t i = 0, first = (t * kv_heads + h) * group * dim; i < int64_t(group) * dim;
                 ++i)
                *out++ = q[first + i] * scale;
}

// out (kv_heads, n * group, value_dim)
void AttentionOps::attend(const Pass &pass, float *out) {
    const Isa &isa = context_.isa;
    const int64_t n_queries = pass.n * pass.group, stride = pad_to(pass.value_dim, isa.value_lanes);
    const int64_t step = std::max<int64_t>(1, kQueryTile / pass.group) * pass.group;
    const int64_t n_tiles = (n_queries + step - 1) / step, n_tasks = n_tiles * pass.cache.kv_heads;
    const int64_t wanted = (kMinTasks + n_tasks - 1) / n_tasks;
    const int64_t n_parts =
        std::clamp<int64_t>(pass.cache.n_entries / kMinEntriesPerTask, 1, wanted);
    const int64_t part_entries =
        pad_to((pass.cache.n_entries + n_parts - 1) / n_parts, kPartMultiple);
    const int64_t all_queries = pass.cache.kv_heads * n_queries;
    Frame frame = context_.frame();
    float *sums =
        frame.get<float>(n_parts * all_queries * (stride + 2));  // (n_parts, all_queries, stride)
    float *m = sums + n_parts * all_queries * stride, *l = m + n_parts * all_queries;
    context_.pool.each(n_parts * n_tasks, [&](int64_t i, int thread) {
        const int64_t part = i % n_parts, head = i / n_parts / n_tiles,
                      first = i / n_parts % n_tiles * step;
        const int64_t query = head * n_queries + first, at = part * all_queries + query;
        Frame scratch = context_.frame(thread);
        AttentionTask task{};
        task.q = pass.q + query * pass.dim;
        task.n_queries = int(std::min(step, n_queries - first));
        task.dim = pass.dim, task.value_dim = pass.value_dim;
        task.queries_per_token = pass.group;
        task.first_seen = pass.cache.n_entries - pass.n + first / pass.group + 1;
        task.begin = part * part_entries;
        task.end = std::min(pass.cache.n_entries, task.begin + part_entries);
        task.keys = offset(pass.cache.keys, head * pass.cache.k_head_bytes);
        task.values = offset(pass.cache.values, head * pass.cache.v_head_bytes);
        task.out = sums + at * stride, task.m = m + at, task.l = l + at;
        task.value_stride = int(stride);
        task.scratch = scratch.get<uint8_t>(int64_t(isa.attention_scratch_bytes(task)));
        task.stops = Pool::stops, task.pool = &context_.pool;
        isa.attend(task);
    });
    const int64_t n_merges = (all_queries + kMergeBatch - 1) / kMergeBatch;
    const int64_t n_bytes = n_parts * all_queries * stride * int64_t(sizeof(float));
    context_.pool.each(n_merges, n_bytes, [&](int64_t i, int) {
        for (int64_t query = i * kMergeBatch; query < std::min(all_queries, (i + 1) * kMergeBatch);
             ++query)
            merge_parts(sums + query * stride, m + query, l + query, n_parts, all_queries * stride,
                        all_queries, pass.value_dim, out + query * pass.value_dim);
    });
}

void AttentionOps::gqa(const float *q, int64_t n, int heads, int dim, const GroupedKv &cache,
                       float scale, float *out) {
    if (n > 1 && n < kMinTokensTogether)
        return one_by_one(cache, n, [&](int64_t t, const GroupedKv &seen) {
            const int64_t at = t * heads * dim;
            gqa(q + at, 1, heads, dim, seen, scale, out + at);
        });
    const int group = heads / cache.kv_heads;
    Frame frame = context_.frame();
    float *packed = frame.get<float>(n * heads * dim), *mixed = frame.get<float>(n * heads * dim);
    pack_queries(q, n, cache.kv_heads, group, dim, scale, packed);
    attend({packed, n, group, dim, dim, cache}, mixed);
    for (int64_t h = 0; h < cache.kv_heads; ++h)
        for (int64_t t = 0; t < n; ++t)
            std::copy_n(mixed + (h * n + t) * group * dim, group * dim,
                        out + (t * cache.kv_heads + h) * group * dim);
}

// All heads share the latents: one key head, whose values are the first `rank` elements of its
// keys.
void AttentionOps::mla_absorbed(const float *q, int64_t n, int dim, const LatentKv &cache,
                                float scale, float *out) {
    const Matrix &k_b = *cache.k_b, &v_b = *cache.v_b;
    const int64_t heads = k_b.n_slices, rank = k_b.rows, nope = k_b.cols, rope = dim - nope;
    const int64_t latent = rank + rope;
    Frame frame = context_.frame();
    float *by_head =
        frame.get<float>(heads * n * std::max(nope, rank));  // (heads, n, nope), then (.., rank)
    float *packed = frame.get<float>(n * heads * latent);    // (n * heads, latent)
    for (int64_t h = 0; h < heads; ++h)
        for (int64_t t = 0; t < n; ++t) {
            const float *from = q + (t * heads + h) * dim;
            std::copy_n(from, nope, by_head + (h * n + t) * nope);
            float *rope_to = packed + (t * heads + h) * latent + rank;
            for (int64_t i = 0; i < rope; ++i) rope_to[i] = from[nope + i] * scale;
        }
    for (int64_t i = 0; i < heads * n * nope; ++i) by_head[i] *= scale;
    {
        Frame inner = context_.frame();
        const Activations input =
            linear_.activations(inner, by_head, heads * n, nope, wants_quantized(k_b));
        context_.pool.each(heads, n * heads * rank * int64_t(k_b.row_bytes),
                           [&](int64_t h, int thread) {
                               linear_.gemm(k_b, h, 0, rank, input.from(h * n), nullptr, n,
                                            packed + h * latent, heads * latent, thread);
                           });
    }
    const GroupedKv shared{cache.entries, cache.entries, 0, 0, 1, cache.n_entries};
    float *mixed = frame.get<float>(n * heads * rank);
    if (n < kMinTokensTogether)
        one_by_one(shared, n, [&](int64_t t, const GroupedKv &seen) {
            attend({packed + t * heads * latent, 1, int(heads), int(latent), int(rank), seen},
                   mixed + t * heads * rank);
        });
    else attend({packed, n, int(heads), int(latent), int(rank), shared}, mixed);
    for (int64_t h = 0; h < heads; ++h)
        for (int64_t t = 0; t < n; ++t)
            std::copy_n(mixed + (t * heads + h) * rank, rank, by_head + (h * n + t) * rank);
    const Activations sums =
        linear_.activations(frame, by_head, heads * n, rank, wants_quantized(v_b));
    context_.pool.each(heads, n * heads * v_b.rows * int64_t(v_b.row_bytes),
                       [&](int64_t h, int thread) {
                           linear_.gemm(v_b, h, 0, v_b.rows, sums.from(h * n), nullptr, n,
                                        out + h * v_b.rows, heads * v_b.rows, thread);
                       });
}

}  // namespace sprat
