// Products of weights with activations, split over threads by rows; and what is done per token.
#pragma once

#include <initializer_list>

#include "runtime/native/context.hpp"
#include "runtime/native/layers.hpp"

namespace sprat {

// Block formats multiply activations in int8, float formats those in float32.
inline bool wants_quantized(const Matrix &m) { return m.format > BF16; }
inline bool wants_quantized(const Mlp &mlp) {
    return wants_quantized(mlp.gate) || wants_quantized(mlp.up);
}

class LinearOps {
  public:
    explicit LinearOps(Context &context) : context_(context) {}

    // out (n, rows) = x (n, cols) . weight + bias; bias may be nullptr
    void linear(const Matrix &weight, const float *x, int64_t n, const float *bias, float *out);
    // x (n, rows) += y (n, cols) . weight
    void add_linear(const Matrix &weight, const float *y, int64_t n, float *x);
    void embed(const Matrix &table, const int32_t *tokens, int64_t n, float *out);
    void rms_norm(const float *x, const float *gain, float eps, int64_t n, int64_t k, float *out);
    // out (n, vocabulary) = norm(x) . output
    void logits(const Head &layer, const float *x, int64_t n, float *out);

    // x (n, k) as products want it, quantized if asked for; the memory is the frame's.
    Activations activations(Frame &frame, const float *x, int64_t n, int64_t k, bool quantized);
    // The same of norm(x).
    Activations normed(Frame &frame, const Norm &norm, const float *x, int64_t n, int64_t k,
                       bool quantized);

    // One product among several of the same input: out (n, rows), or added to what is there.
    struct Part {
        const Matrix *weight;
        const float *bias;  // nullptr for none
        float *out;
        bool add = false;
    };
    // Several products of one input, split over threads as one.
    void project(std::initializer_list<Part> parts, const Activations &input, int64_t n);

    // Some rows of a slice times some tokens (nullptr for 0, 1, 2, ...), on one thread. `next` are
    // the rows that the thread reads afterwards, nullptr for the following ones.
    void gemm(const Matrix &weight, int64_t slice, int64_t row, int64_t n_rows,
              const Activations &input, const int32_t *tokens, int64_t n_tokens, float *out,
              int64_t out_stride, int thread, const uint8_t *next = nullptr);

  private:
    Activations quantized_buffer(Frame &frame, const float *x, int64_t n, int64_t k);
    void quantize_activations(const Activations &input, int64_t token, int thread);
    void project_rows(const Part &part, int64_t row, int64_t n_rows, const Activations &input,
                      int64_t n, int thread);

    Context &context_;
};

}  // namespace sprat
