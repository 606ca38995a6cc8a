// Attention of new tokens over KV entries, split over threads; the sublayers around it.
#pragma once

#include "runtime/native/context.hpp"
#include "runtime/native/layers.hpp"
#include "runtime/native/linear.hpp"

namespace sprat {

// The KV entries of all heads: (kv_heads, n_entries), heads k_head_bytes / v_head_bytes apart.
struct GroupedKv {
    KvEntries keys, values;
    int64_t k_head_bytes, v_head_bytes;
    int kv_heads;
    int64_t n_entries;
};

// Latents (n_entries, rank + rope), which all heads share, and the matrices that expand them.
struct LatentKv {
    KvEntries entries;
    int64_t n_entries;
    const Matrix *k_b, *v_b;
};

class AttentionOps {
  public:
    AttentionOps(Context &context, LinearOps &linear) : context_(context), linear_(linear) {}

    // q (n, heads, dim); consecutive heads / kv_heads query heads share a key head.
    void gqa(const float *q, int64_t n, int heads, int dim, const GroupedKv &cache, float scale,
             float *out);
    // q (n, heads, nope + rope), in the two forms of multi-head latent attention (arXiv
    // 2405.04434): every head expands the latents to keys and values of its own, or k_b is absorbed
    // into the query and all heads attend to the latents themselves.
    void mla_expanded(const float *q, int64_t n, int dim, const LatentKv &cache, float scale,
                      float *out);
    void mla_absorbed(const float *q, int64_t n, int dim, const LatentKv &cache, float scale,
                      float *out);

    // Sublayers: x (n, hidden) += attention(norm(x)). The new tokens' entries are written to the
    // cache. With n_sequences buffers, each sequence has n / n_sequences of the tokens.
    void latent_attention(const LatentAttention &layer, float *x, int64_t n,
                          const RopeAngles &angles, const KvBuffers &latents, bool expanded);
    void grouped_attention(const GroupedAttention &layer, float *x, int64_t n,
                           const RopeAngles &angles, const KvBuffers &keys,
                           const KvBuffers &values);

  private:
    struct Pass;

    void attend(const Pass &pass, float *out);
    void expand_head(const float *q, int64_t n, int dim, const LatentKv &cache, int64_t head,
                     float *out, int thread);
    void normalize_heads(const Norm &norm, float *x, int64_t heads, int64_t dim);
    void project_latents(Frame &frame, const LatentAttention &layer, const float *x, int64_t n,
                         float *q, float *kv);

    Context &context_;
    LinearOps &linear_;
};

// Queries (n, heads, dim) to (kv_heads, n * group, dim), times scale.
void pack_queries(const float *q, int64_t n, int kv_heads, int group, int dim, float scale,
                  float *out);

// Several parts of one query's attention, each relative to its own m (flash/task.hpp), into one
// result. Part p's sums begin at sums + p * part_sums, its m and l at m[p * part_queries].
void merge_parts(const float *sums, const float *m, const float *l, int64_t n_parts,
                 int64_t part_sums, int64_t part_queries, int value_dim, float *out);

}  // namespace sprat
