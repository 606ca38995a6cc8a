// Gated MLPs, down(silu(gate(x)) * up(x)): dense ones, and those of MoE layers.
#pragma once

#include <vector>

#include "runtime/native/context.hpp"
#include "runtime/native/layers.hpp"
#include "runtime/native/linear.hpp"

namespace sprat {

class MoeOps {
  public:
    MoeOps(Context &context, LinearOps &linear) : context_(context), linear_(linear) {}

    // A dense MLP: out (n, hidden) of x (n, hidden).
    void swiglu(const Mlp &mlp, const float *x, int64_t n, float *out);
    // Weighted sum over the chosen experts of each token, plus the shared MLP; shared may be
    // nullptr.
    void experts(const Mlp &routed, const Mlp *shared, const float *x, int64_t n,
                 const int32_t *expert_ids, const float *weights, int n_chosen, float *out);

    // Sublayers: x (n, hidden) += mlp(norm(x)).
    void gated_mlp(const GatedMlp &layer, float *x, int64_t n);
    void moe(const Moe &layer, float *x, int64_t n);
    // The same in two steps, so that a caller can observe the routing before experts are read:
    // expert_ids and weights are (n, n_chosen).
    void moe_route(const Moe &layer, const float *x, int64_t n, int32_t *expert_ids,
                   float *weights);
    void moe_forward_routed(const Moe &layer, float *x, int64_t n, const int32_t *expert_ids,
                            const float *weights);

  private:
    struct Job;
    struct SortedJobs;

    Activations normed(Frame &frame, const Moe &layer, const float *x, int64_t n);
    void route_normed(Frame &frame, const Moe &layer, const Activations &input, int64_t n,
                      int32_t *expert_ids, float *weights);
    void add_experts(const Moe &layer, const Activations &input, float *x, int64_t n,
                     const int32_t *expert_ids, const float *weights);
    void run(std::vector<Job> &jobs, const Activations &input, int64_t n, float *out, bool add);
    void gate_and_up(const std::vector<Job> &jobs, const Activations &input);
    void quantize_hidden(Frame &frame, std::vector<Job> &jobs);
    void down(const std::vector<Job> &jobs, int64_t n, float *out, int64_t hidden_size, bool add);

    Context &context_;
    LinearOps &linear_;
};

}  // namespace sprat
