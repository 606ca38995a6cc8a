// Attention sublayers as one call: norm, projections, rotation, new KV entries, attention, output
// projection, residual sum.
#include "runtime/native/attention.hpp"
#include "runtime/native/rope.hpp"

namespace sprat {

void AttentionOps::latent_attention(const LatentAttention &layer, float *x, int64_t n,
                                    const RopeAngles &angles, const KvBuffers &latents,
                                    bool expanded) {
    const int64_t heads = layer.heads(), rank = layer.rank(), dim = layer.head_dim(),
                  rope = layer.rope();
    const int64_t latent_size = rank + rope, half = rope / 2, own = n / latents.n_sequences;
    Frame frame = context_.frame();
    float *q = frame.get<float>(n * heads * dim), *kv = frame.get<float>(n * latent_size);
    project_latents(frame, layer, x, n, q, kv);
    context_.each_token(n, heads * dim + latent_size, [&](int64_t t, int) {
        const float *cos = angles.cos + t * half, *sin = angles.sin + t * half;
        float *latent = kv + t * latent_size;
        rotate(q + t * heads * dim + layer.nope(), heads, dim, half, cos, sin, angles.interleaved);
        rotate(latent + rank, 1, rope, half, cos, sin, angles.interleaved);
        context_.isa.rms_norm(latent, layer.kv_a_norm.gain.data, layer.kv_a_norm.eps, rank, latent);
        const KvBuffer &buffer = latents.of_sequence[t / own];
        store_entry(buffer.entries, buffer.n_past + t % own, latent, latent_size);
    });
    float *attended = frame.get<float>(n * heads * layer.v_b.rows);
    for (int64_t s = 0; s < latents.n_sequences; ++s) {
        const KvBuffer &buffer = latents.of_sequence[s];
        const LatentKv cache{buffer.entries, buffer.n_past + own, &layer.k_b, &layer.v_b};
        const float *from = q + s * own * heads * dim;
        float *to = attended + s * own * heads * layer.v_b.rows;
        if (expanded) mla_expanded(from, own, int(dim), cache, layer.scale, to);
        else mla_absorbed(from, own, int(dim), cache, layer.scale, to);
    }
    linear_.add_linear(layer.output, attended, n, x);
}

// Queries (n, heads * dim) and latents (n, rank + rope), not rotated yet.
void AttentionOps::project_latents(Frame &frame, const LatentAttention &layer, const float *x,
                                   int64_t n, float *q, float *kv) {
    const Matrix &first = layer.compresses_queries() ? layer.q_a : layer.q;
    const bool quantized = wants_quantized(first) || wants_quantized(layer.kv_a);
    const Activations input = linear_.normed(frame, layer.norm, x, n, first.cols, quantized);
    if (!layer.compresses_queries())
        return linear_.project({{&layer.q, nullptr, q}, {&layer.kv_a, nullptr, kv}}, input, n);
    float *compressed = frame.get<float>(n * first.rows);
    linear_.project({{&layer.q_a, nullptr, compressed}, {&layer.kv_a, nullptr, kv}}, input, n);
    const bool expands_quantized = wants_quantized(layer.q);
    const Activations inner =
        linear_.normed(frame, layer.q_a_norm, compressed, n, first.rows, expands_quantized);
    linear_.project({{&layer.q, nullptr, q}}, inner, n);
}

// RMSNorm of each of one token's heads, in place (Qwen3); nothing where the layer has no such norm.
void AttentionOps::normalize_heads(const Norm &norm, float *x, int64_t heads, int64_t dim) {
    if (!norm.gain.data) return;
    for (int64_t h = 0; h < heads; ++h, x += dim)
        context_.isa.rms_norm(x, norm.gain.data, norm.eps, dim, x);
}

void AttentionOps::grouped_attention(const GroupedAttention &layer, float *x, int64_t n,
                                     const RopeAngles &angles, const KvBuffers &keys,
                                     const KvBuffers &values) {
    const int64_t dim = layer.head_dim, half = dim / 2, n_q = layer.q.rows, n_kv = layer.k.rows;
    const int64_t own = n / keys.n_sequences;
    const bool quantized =
        wants_quantized(layer.q) || wants_quantized(layer.k) || wants_quantized(layer.v);
    Frame frame = context_.frame();
    float *q = frame.get<float>(n * n_q), *k = frame.get<float>(n * n_kv),
          *v = frame.get<float>(n * n_kv);
    const Activations input = linear_.normed(frame, layer.norm, x, n, layer.q.cols, quantized);
    linear_.project({{&layer.q, layer.q_bias.data, q},
                     {&layer.k, layer.k_bias.data, k},
                     {&layer.v, layer.v_bias.data, v}},
                    input, n);
    context_.each_token(n, n_q + 2 * n_kv, [&](int64_t t, int) {
        const float *cos = angles.cos + t * half, *sin = angles.sin + t * half;
        normalize_heads(layer.q_norm, q + t * n_q, layer.heads(), dim);
        normalize_heads(layer.k_norm, k + t * n_kv, layer.kv_heads(), dim);
        rotate(q + t * n_q, layer.heads(), dim, half, cos, sin, angles.interleaved);
        rotate(k + t * n_kv, layer.kv_heads(), dim, half, cos, sin, angles.interleaved);
        const KvBuffer &key = keys.of_sequence[t / own], &value = values.of_sequence[t / own];
        for (int64_t h = 0; h < layer.kv_heads(); ++h) {
            store_entry(key.of_head(h), key.n_past + t % own, k + t * n_kv + h * dim, dim);
            store_entry(value.of_head(h), value.n_past + t % own, v + t * n_kv + h * dim, dim);
        }
    });
    float *attended = frame.get<float>(n * n_q);
    for (int64_t s = 0; s < keys.n_sequences; ++s) {
        const KvBuffer &key = keys.of_sequence[s], &value = values.of_sequence[s];
        const GroupedKv cache{key.entries,      value.entries,         key.head_bytes,
                              value.head_bytes, int(layer.kv_heads()), key.n_past + own};
        gqa(q + s * own * n_q, own, int(layer.heads()), int(dim), cache, layer.scale,
            attended + s * own * n_q);
    }
    linear_.add_linear(layer.output, attended, n, x);
}

}  // namespace sprat
