// Attention as one call: norm, projections, rotation, new rows of the cache, attention, output, residual sum.
#include "runtime/native/kernels.hpp"
#include "runtime/native/rope.hpp"
#include "runtime/native/store_rows.hpp"

namespace sprat {
namespace {

const float *at(const float *angles, int64_t token, int64_t half) { return angles + token * half; }

}  // namespace

void KernelSet::latent_attention(const LatentAttention &layer, float *x, int64_t n, const RopeAngles &angles,
                                 const CachePlane &plane, bool expanded) {
    const int64_t heads = layer.heads(), rank = layer.rank(), dim = layer.head_dim(), rope = layer.rope();
    const int64_t row = rank + rope, n_values = heads * layer.v_b.rows;
    float *q = projected_.get<float>(n * (heads * dim + row)), *kv = q + n * heads * dim;
    project_latents(layer, x, n, q, kv);
    each_token(n, heads * dim + row, [&](int64_t t) {
        const float *cos = at(angles.cos, t, rope / 2), *sin = at(angles.sin, t, rope / 2);
        float *latent = kv + t * row;
        rotate(q + t * heads * dim + layer.nope(), heads, dim, rope / 2, cos, sin, angles.interleaved);
        rotate(latent + rank, 1, rope, rope / 2, cos, sin, angles.interleaved);
        isa_.rms_norm(latent, layer.kv_a_norm.gain.data, layer.kv_a_norm.eps, rank, latent);
        store_row(plane.rows, plane.n_past + t, latent, row);
    });
    const Latents latents{plane.rows, plane.n_past + n, &layer.k_b, &layer.v_b};
    float *attended = attended_.get<float>(n * n_values);
    if (expanded) mla_expanded(q, n, int(dim), latents, layer.scale, attended);
    else mla_absorbed(q, n, int(dim), latents, layer.scale, attended);
    add_product(layer.output, attended, n, x);
}

// Queries (n, heads * dim) and latents (n, rank + rope), not rotated yet.
void KernelSet::project_latents(const LatentAttention &layer, const float *x, int64_t n, float *q, float *kv) {
    const Matrix &first = layer.compresses_queries() ? layer.q_a : layer.q;
    const Input input = normed(layer.norm, x, n, first.cols, wants_quantized(first) || wants_quantized(layer.kv_a));
    if (!layer.compresses_queries())
        return project({{&layer.q, nullptr, q}, {&layer.kv_a, nullptr, kv}}, input, n);
    float *compressed = attended_.get<float>(n * first.rows);
    project({{&layer.q_a, nullptr, compressed}, {&layer.kv_a, nullptr, kv}}, input, n);
    project({{&layer.q, nullptr, q}}, normed(layer.q_a_norm, compressed, n, first.rows, wants_quantized(layer.q)), n);
}

void KernelSet::grouped_attention(const GroupedAttention &layer, float *x, int64_t n, const RopeAngles &angles,
                                  const CachePlane &keys, const CachePlane &values) {
    const int64_t dim = layer.head_dim, n_q = layer.q.rows, n_kv = layer.k.rows;
    const bool quantized = wants_quantized(layer.q) || wants_quantized(layer.k) || wants_quantized(layer.v);
    float *q = projected_.get<float>(n * (n_q + 2 * n_kv)), *k = q + n * n_q, *v = k + n * n_kv;
    project({{&layer.q, layer.q_bias.data, q}, {&layer.k, layer.k_bias.data, k}, {&layer.v, layer.v_bias.data, v}},
            normed(layer.norm, x, n, layer.q.cols, quantized), n);
    each_token(n, n_q + 2 * n_kv, [&](int64_t t) {
        const float *cos = at(angles.cos, t, dim / 2), *sin = at(angles.sin, t, dim / 2);
        rotate(q + t * n_q, layer.heads(), dim, dim / 2, cos, sin, angles.interleaved);
        rotate(k + t * n_kv, layer.kv_heads(), dim, dim / 2, cos, sin, angles.interleaved);
        for (int64_t h = 0; h < layer.kv_heads(); ++h) {
            store_row(keys.of_head(h), keys.n_past + t, k + t * n_kv + h * dim, dim);
            store_row(values.of_head(h), values.n_past + t, v + t * n_kv + h * dim, dim);
        }
    });
    const Heads cache{keys.rows, values.rows, keys.head, values.head, int(layer.kv_heads()), keys.n_past + n};
    float *attended = attended_.get<float>(n * n_q);
    gqa(q, n, int(layer.heads()), int(dim), cache, layer.scale, attended);
    add_product(layer.output, attended, n, x);
}

}  // namespace sprat
