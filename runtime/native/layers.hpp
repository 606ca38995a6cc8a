// The halves of a layer as one call each: what runtime/kernels/layers.py holds, bound once to packed weights.
#pragma once

#include <cstdint>

#include "runtime/native/matrix.hpp"

namespace sprat {

struct Mlp {
    const Matrix *gate, *up, *down;
};

struct MoE {  // runtime/arch/spec.py: MoESpec
    int n_experts, n_chosen, n_groups, n_groups_chosen;
    bool sigmoid, normalize, top2_groups;
    float scaling;
};

struct Norm {
    const float *gain;
    float eps;
};

// Cosines and sines of the new tokens' positions, (n, dim / 2) each.
struct Angles {
    const float *cos, *sin;
    bool interleaved;
};

struct LatentAttention {
    Norm norm;
    const Matrix *q_a;  // nullptr without a compressed query; then q_a_norm means nothing
    Norm q_a_norm;
    const Matrix *q, *kv_a;
    Norm kv_a_norm;
    const Matrix *k_b, *v_b, *output;
    float scale;

    int64_t heads() const { return k_b->n_slices; }
    int64_t rank() const { return k_b->rows; }
    int64_t nope() const { return k_b->cols; }
    int64_t head_dim() const { return q->rows / heads(); }
    int64_t rope() const { return head_dim() - nope(); }
};

struct GroupedAttention {
    Norm norm;
    const Matrix *q, *k, *v, *output;
    const float *q_bias, *k_bias, *v_bias;  // nullptr for none
    int head_dim;
    float scale;

    int64_t heads() const { return q->rows / head_dim; }
    int64_t kv_heads() const { return k->rows / head_dim; }
};

struct GatedMlp {
    Norm norm;
    Mlp mlp;
};

struct Mixture {
    Norm norm;
    const Matrix *router;
    const float *bias;  // nullptr for none
    MoE moe;
    Mlp routed, shared;  // shared.gate is nullptr where there are none
};

struct Head {
    Norm norm;
    const Matrix *output;
};

// One layer's rows of a cache, for all tokens that fit; heads lie `head` bytes apart. New tokens' rows are written
// behind the `past` ones that are there.
struct CachePlane {
    Rows rows;
    int64_t head;
    int64_t past;

    Rows of_head(int64_t h) const {
        Rows own = rows;
        own.data += h * head;
        return own;
    }
};

}  // namespace sprat
