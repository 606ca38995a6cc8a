// A kernel set: the functions of one instruction set, spread over the threads of one pool.
#pragma once

#include <algorithm>
#include <mutex>
#include <vector>

#include "runtime/native/isa.hpp"
#include "runtime/native/pool.hpp"

namespace sprat {

struct Mlp {
    const Matrix *gate, *up, *down;
};

struct MoE {  // runtime/spec.py: MoESpec
    int n_experts, n_chosen, n_groups, n_groups_chosen;
    bool sigmoid, normalize, top2_groups;
    float scaling;
};

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
    KernelSet(const Isa &isa, int n_threads, const std::vector<int> &cores) : isa_(isa), pool_(n_threads, cores) {}

    const Isa &isa() const { return isa_; }
    int n_threads() const { return pool_.n_threads(); }

    // out (n, rows) = x (n, cols) . weight + bias
    void linear(const Matrix &weight, const float *x, int64_t n, const float *bias, float *out);
    void embed(const Matrix &table, const int32_t *tokens, int64_t n, float *out);
    void rms_norm(const float *x, const float *gain, float eps, int64_t n, int64_t k, float *out);
    void swiglu(const Mlp &mlp, const float *x, int64_t n, float *out);
    // choice (n, n_chosen) and weights (n, n_chosen) of logits (n, n_experts); bias may be nullptr
    void route(const MoE &moe, const float *logits, const float *bias, int64_t n, int32_t *choice, float *weights);
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

    // Every byte once, with all threads: how fast the memory is. Returns something of them, so that they are read.
    uint64_t read(const uint8_t *data, int64_t n_bytes);

    std::mutex busy;  // two Python threads may share a model: whoever calls holds this

  private:
    struct Job;
    struct Pass;

    bool wants_quantized(const Matrix &m) const { return m.format > BF16; }
    // body(token) for each of n tokens of k numbers. One takes about a microsecond: not worth waking the others.
    template <class Body> void each_token(int64_t n, int64_t k, const Body &body) {
        const int64_t per_piece = std::max<int64_t>(1, 16384 / k);
        pool_.each((n + per_piece - 1) / per_piece, [&](int64_t i, int) {
            for (int64_t t = i * per_piece; t < std::min(n, (i + 1) * per_piece); ++t) body(t);
        });
    }
    Input prepare(Buffer &buffer, const float *x, int64_t n, int64_t k, bool quantized);
    void product(const Matrix &weight, int64_t slice, int64_t row, int64_t n_rows, const Input &input,
                 const int32_t *tokens, int64_t n_tokens, float *out, int64_t out_stride, int thread);
    void mix(std::vector<Job> &jobs, const float *x, int64_t n, float *out, int64_t hidden_size);
    void gate_and_up(const std::vector<Job> &jobs, const Input &input);
    void round_hidden(std::vector<Job> &jobs);
    void down(const std::vector<Job> &jobs, int64_t n, float *out, int64_t hidden_size);
    void attend(const Pass &pass, float *mixed);

    const Isa &isa_;
    Pool pool_;
    Buffer inputs_, hidden_, routed_inputs_, shared_inputs_, queries_, partial_, mixed_;
    std::vector<Buffer> staging_{size_t(pool_.n_threads())};
};

}  // namespace sprat
