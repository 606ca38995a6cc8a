// A kernel set: the functions of one instruction set, spread over the threads of one pool.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <mutex>
#include <vector>

#include "runtime/native/isa.hpp"
#include "runtime/native/layers.hpp"
#include "runtime/native/pool.hpp"

namespace sprat {

// Memory that a kernel needs until it returns, kept for the next one.
class Buffer {
  public:
    // n objects of T, uninitialised, aligned to 64.
    template <class T> T *get(int64_t n) { return reinterpret_cast<T *>(bytes(size_t(n) * sizeof(T))); }

  private:
    uint8_t *bytes(size_t n);
    std::vector<uint8_t> data_;
};

class KernelSet {
  public:
    // With two digits, products take activations in int8 and then what that left of them: 15 bits in all, twice the work.
    KernelSet(const Isa &isa, int n_threads, const std::vector<int> &cores, int n_digits = 1)
        : isa_(isa), pool_(n_threads, cores), n_digits_(n_digits) {}

    const Isa &isa() const { return isa_; }
    int n_threads() const { return pool_.n_threads(); }

    // out (n, rows) = x (n, cols) . weight + bias
    void linear(const Matrix &weight, const float *x, int64_t n, const float *bias, float *out);
    void embed(const Matrix &table, const int32_t *tokens, int64_t n, float *out);
    void rms_norm(const float *x, const float *gain, float eps, int64_t n, int64_t k, float *out);
    void swiglu(const Mlp &mlp, const float *x, int64_t n, float *out);
    // choice (n, n_chosen) and weights (n, n_chosen) of logits (n, n_experts); bias may be nullptr
    void route(const MoeSpec &spec, const float *logits, const float *bias, int64_t n, int32_t *choice, float *weights);
    // Weighted sum over the experts of each token, plus the shared MLP; shared may be nullptr.
    void experts(const Mlp &routed, const Mlp *shared, const float *x, int64_t n, const int32_t *choice,
                 const float *weights, int n_chosen, float *out);
    // q (n, heads, dim) over keys (kv_heads, t, dim) and values, whose heads lie key_head / value_head bytes apart
    struct Heads {
        Rows keys, values;
        int64_t key_head, value_head;
        int kv_heads;
        int64_t n_rows;
    };
    void gqa(const float *q, int64_t n, int heads, int dim, const Heads &cache, float scale, float *out);
    // q (n, heads, nope + rope) over latents (t, rank + rope)
    struct Latents {
        Rows rows;
        int64_t n_rows;
        const Matrix *k_b, *v_b;
    };
    void mla_expanded(const float *q, int64_t n, int dim, const Latents &latents, float scale, float *out);
    void mla_absorbed(const float *q, int64_t n, int dim, const Latents &latents, float scale, float *out);

    // Halves of a layer (layers.hpp), each added to x (n, hidden) in place; n new tokens.
    void latent_attention(const LatentAttention &layer, float *x, int64_t n, const RopeAngles &angles, const CachePlane &plane,
                          bool expanded);
    void grouped_attention(const GroupedAttention &layer, float *x, int64_t n, const RopeAngles &angles,
                           const CachePlane &keys, const CachePlane &values);
    void gated_mlp(const GatedMlp &layer, float *x, int64_t n);
    void moe(const Moe &layer, float *x, int64_t n);
    // The same in two steps, so that a caller can observe the routing (n, n_chosen) before experts are read.
    void moe_route(const Moe &layer, const float *x, int64_t n, int32_t *expert_ids, float *weights);
    void moe_forward_routed(const Moe &layer, float *x, int64_t n, const int32_t *expert_ids, const float *weights);
    // out (n, vocabulary) = norm(x) . output
    void logits(const Head &layer, const float *x, int64_t n, float *out);

    // Every byte once, with all threads: how fast the memory is. Returns something of them, so that they are read.
    uint64_t read(const uint8_t *data, int64_t n_bytes);

    std::mutex busy;  // two Python threads may share a model: whoever calls holds this

  private:
    struct Job;
    struct Pass;
    struct Sorted;
    struct Part {  // one product among several of the same input: out (n, rows), or added to what is there
        const Matrix *weight;
        const float *bias;  // nullptr for none
        float *out;
        bool add = false;
    };

    bool wants_quantized(const Matrix &m) const { return m.format > BF16; }
    bool wants_quantized(const Mlp &mlp) const { return wants_quantized(mlp.gate) || wants_quantized(mlp.up); }
    // body(token) for each of n tokens of k numbers. One takes about a microsecond: not worth waking the others.
    template <class Body> void each_token(int64_t n, int64_t k, const Body &body) {
        const int64_t per_piece = std::max<int64_t>(1, 16384 / k);
        pool_.each((n + per_piece - 1) / per_piece, [&](int64_t i, int) {
            for (int64_t t = i * per_piece; t < std::min(n, (i + 1) * per_piece); ++t) body(t);
        });
    }
    Input prepare(Buffer &buffer, const float *x, int64_t n, int64_t k, bool quantized);
    // Room for n tokens' records, and the rounding of one.
    Input records(Buffer &buffer, const float *x, int64_t n, int64_t k);
    void round(const Input &input, int64_t t);
    // Rows of x, normalised; rounded too if wanted.
    Input normed(const Norm &norm, const float *x, int64_t n, int64_t k, bool quantized);
    Input normed(const Moe &layer, const float *x, int64_t n);
    // Several products of one input, split over threads as one.
    void project(std::initializer_list<Part> parts, const Input &input, int64_t n);
    void project_rows(const Part &part, int64_t row, int64_t n_rows, const Input &input, int64_t n, int thread);
    // x (n, rows) += y (n, cols) . weight
    void add_product(const Matrix &weight, const float *y, int64_t n, float *x);
    void project_latents(const LatentAttention &layer, const float *x, int64_t n, float *q, float *kv);
    void route_layer(const Moe &layer, const Input &input, int64_t n, int32_t *choice, float *weights);
    void add_experts(const Moe &layer, const Input &input, float *x, int64_t n, const int32_t *choice, const float *weights);
    // Some rows of a weight times some tokens; `next` are the rows that the thread wants afterwards, nullptr for the
    // following ones.
    void product(const Matrix &weight, int64_t slice, int64_t row, int64_t n_rows, const Input &input,
                 const int32_t *tokens, int64_t n_tokens, float *out, int64_t out_stride, int thread,
                 const uint8_t *next = nullptr);
    void mix(std::vector<Job> &jobs, const Input &input, int64_t n, float *out, bool add);
    void gate_and_up(const std::vector<Job> &jobs, const Input &input);
    void round_hidden(std::vector<Job> &jobs);
    void down(const std::vector<Job> &jobs, int64_t n, float *out, int64_t hidden_size, bool add);
    void attend(const Pass &pass, float *mixed);

    const Isa &isa_;
    Pool pool_;
    const int n_digits_;
    Buffer inputs_, hidden_, routed_inputs_, shared_inputs_, queries_, partial_, mixed_;
    Buffer normed_, projected_, attended_, scores_, choice_, weights_;  // between the steps of a layer
    Buffer left_;  // of activations, by their first digits
    std::vector<Buffer> staging_{size_t(pool_.n_threads())}, second_sums_{size_t(pool_.n_threads())};
};

}  // namespace sprat
