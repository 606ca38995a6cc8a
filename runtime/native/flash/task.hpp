// One piece of attention, as the kernels of an instruction set take it.
#pragma once

#include "runtime/native/kv_cache.hpp"

namespace sprat {

// Some queries over some KV entries of one key head, in the notation of FlashAttention (arXiv
// 2205.14135): m is a query's largest score so far, l the sum of its weights exp(score - m).
struct AttentionTask {
    const float
        *q;  // (n_queries, dim), scaled; token-major, so that later queries see more entries
    int n_queries, dim, value_dim;
    int queries_per_token;  // consecutive queries that share a token, and so a causal limit
    int64_t first_seen;     // entries that the first token sees; each later token sees one more
    int64_t begin, end;     // entries to attend to
    KvEntries keys, values;
    // Expanded latent attention only: keys [k_b . latent, rope], values v_b . latent.
    const float *k_bt = nullptr;  // (nope, rank)
    const float *v_b = nullptr;   // (value_dim, rank)
    int rank = 0, nope = 0;       // rank 0: keys and values lie in the cache as they are
    // Results: weighted sums of values, not yet divided by l: (n_queries, value_stride); m and l
    // (n_queries).
    float *out, *m, *l;
    int value_stride;
    uint8_t *scratch;  // Isa::attention_scratch_bytes(*this), aligned to 64
    // Looked at before every block of entries: true leaves the rest undone. A long context takes a
    // slow core a second. A function, since the kernels are compiled once per instruction set.
    bool (*stops)(const void *pool) = nullptr;
    const void *pool = nullptr;
};

}  // namespace sprat
