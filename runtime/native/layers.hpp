// The sublayers of a model, each bound once to its weights and then called with activations only.
//
// Each struct has the fields of the Python record of the same name (runtime/kernels/layers.py,
// where the shapes are documented) and reads them by attribute name when it is made. A field is
// declared in these two places and nowhere else.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/native/matrix.hpp"

namespace sprat {

// float32 values of a norm or a bias; no data where the record has None.
struct Vector {
    const float *data = nullptr;
    int64_t size = 0;
};

// A record whose fields are read by name: a Python object (bind/layers.cpp), or a test's map. What
// it hands out points into the record's own arrays, so whoever keeps a pointer keeps the record.
class Record {
  public:
    virtual ~Record() = default;
    virtual Matrix matrix(const char *name) const = 0;  // no data where the field is None
    virtual Vector vector(const char *name) const = 0;
    virtual double number(const char *name) const = 0;
    virtual bool flag(const char *name) const = 0;
    virtual std::string text(const char *name) const = 0;
    virtual std::shared_ptr<const Record> record(const char *name) const = 0;  // nullptr for None
};
using RecordPtr = std::shared_ptr<const Record>;

// down(silu(gate(x)) * up(x)); of stacked matrices one slice for each expert.
struct Mlp {
    Matrix gate, up, down;

    bool is_absent() const { return gate.data == nullptr; }
};
Mlp read_mlp(const Record *record);  // an absent one for nullptr

// Routing of experts: MoESpec of the architecture.
struct MoeSpec {
    int n_experts, n_chosen, n_groups, n_groups_chosen;
    bool sigmoid;  // else softmax
    bool normalize, top2_groups;
    float scaling;
};
MoeSpec read_moe_spec(const Record &record);

struct Norm {
    Vector gain;
    float eps;
};

// Cosines and sines of the new tokens' positions, (n, dim / 2) each.
struct RopeAngles {
    const float *cos, *sin;
    bool interleaved;
};

// DeepSeek's attention (arXiv 2405.04434): keys and values come from one latent per token.
struct LatentAttention {
    RecordPtr record;  // keeps the arrays below alive
    float latent_eps = float(record->number("latent_eps"));
    Norm norm{record->vector("norm"), float(record->number("eps"))};
    Matrix q_a = record->matrix("q_a");  // absent where queries are not compressed
    Norm q_a_norm{record->vector("q_a_norm"), latent_eps};
    Matrix q = record->matrix("q"), kv_a = record->matrix("kv_a");
    Norm kv_a_norm{record->vector("kv_a_norm"), latent_eps};
    Matrix k_b = record->matrix("k_b"), v_b = record->matrix("v_b");
    Matrix output = record->matrix("output");
    float scale = float(record->number("scale"));

    // Throws std::invalid_argument for shapes that do not fit together; so do those below.
    explicit LatentAttention(RecordPtr fields);

    bool compresses_queries() const { return q_a.data != nullptr; }
    int64_t heads() const { return k_b.n_slices; }
    int64_t rank() const { return k_b.rows; }
    int64_t nope() const { return k_b.cols; }
    int64_t head_dim() const { return q.rows / heads(); }
    int64_t rope() const { return head_dim() - nope(); }
};

// Attention in which groups of query heads share a key and value head (arXiv 2305.13245).
struct GroupedAttention {
    RecordPtr record;
    float eps = float(record->number("eps"));
    Norm norm{record->vector("norm"), eps};
    Matrix q = record->matrix("q"), k = record->matrix("k"), v = record->matrix("v");
    Vector q_bias = record->vector("q_bias"), k_bias = record->vector("k_bias");
    Vector v_bias = record->vector("v_bias");
    Norm q_norm{record->vector("q_norm"), eps};  // of each head before RoPE; no data without
    Norm k_norm{record->vector("k_norm"), eps};
    Matrix output = record->matrix("output");
    int head_dim = int(record->number("head_dim"));
    float scale = float(record->number("scale"));

    explicit GroupedAttention(RecordPtr fields);

    int64_t heads() const { return q.rows / head_dim; }
    int64_t kv_heads() const { return k.rows / head_dim; }
};

// A dense MLP with its norm.
struct GatedMlp {
    RecordPtr record;
    Norm norm{record->vector("norm"), float(record->number("eps"))};
    Mlp mlp = read_mlp(record->record("mlp").get());

    explicit GatedMlp(RecordPtr fields);
};

// A router that sends each token to a few experts, and shared experts that see every token.
struct Moe {
    RecordPtr record;
    Norm norm{record->vector("norm"), float(record->number("eps"))};
    Matrix router = record->matrix("router");
    Vector bias = record->vector("bias");
    MoeSpec spec = read_moe_spec(*record->record("moe"));
    Mlp routed = read_mlp(record->record("routed").get());
    Mlp shared = read_mlp(record->record("shared").get());

    explicit Moe(RecordPtr fields);
};

// The last norm and the output matrix: hidden states to logits.
struct Head {
    RecordPtr record;
    Norm norm{record->vector("norm"), float(record->number("eps"))};
    Matrix output = record->matrix("output");

    explicit Head(RecordPtr fields);
};

}  // namespace sprat
