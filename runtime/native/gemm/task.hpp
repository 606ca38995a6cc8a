// One piece of a matrix product, as the micro-kernels of an instruction set take it.
#pragma once

#include "runtime/native/matrix.hpp"

namespace sprat {

// Some rows of a weight times some tokens: out[i * out_stride + r] = row r . token tokens[i].
struct GemmTask {
    const uint8_t *weights;  // (n_rows, row_bytes)
    // The rows that this thread reads afterwards. They are prefetched meanwhile, never read here.
    const uint8_t *next;
    size_t row_bytes;
    int n_rows;
    const Activations *input;
    const int32_t *tokens;  // nullptr for 0, 1, 2, ...
    int n_tokens;
    float *out;
    int64_t out_stride;
    uint8_t *scratch;  // gemm_scratch_bytes(n_tokens), aligned to 64, of one thread
};

// Most rows of a packed panel (kNR in gemm.hpp) on any instruction set: tasks begin at multiples.
constexpr int kMaxNR = 32;

// A packed panel of kNR rows x kKC columns, and sums (n_tokens, kNR) of all tokens, with room for a
// tile that reaches beyond the last one.
static SPRAT_ALWAYS_INLINE size_t gemm_scratch_bytes(int64_t n_tokens) {
    return 64 * 1024 + (n_tokens + 8) * kMaxNR * sizeof(float);
}

}  // namespace sprat
