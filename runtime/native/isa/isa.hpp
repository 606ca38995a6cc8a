// The functions that each instruction set provides, and the choice among the sets.
#pragma once

#include "runtime/native/flash/task.hpp"
#include "runtime/native/gemm/task.hpp"

namespace sprat {

struct Isa {
    const char *name;  // what $SPRAT_ISA and sprat doctor call it
    void (*gemm[N_FORMATS])(const GemmTask &);
    void (*dequantize[N_FORMATS])(const uint8_t *row, int64_t k, float *out);
    void (*quantize)(const float *x, int64_t k, const QuantizedActivations &into, int64_t token);
    void (*silu_mul)(const float *gate, const float *up, int64_t n, float *out);
    void (*rms_norm)(const float *x, const float *gain, float eps, int64_t k, float *out);
    void (*attend)(const AttentionTask &);
    size_t (*attention_scratch_bytes)(const AttentionTask &);
    int value_lanes;  // AttentionTask::value_stride must be a multiple of it
};

// Best first; only those that this processor runs.
const Isa *const *usable_isas(int &n);

// The best one, or the one of that name. nullptr when this processor lacks it.
const Isa *find_isa(const char *name);

static SPRAT_ALWAYS_INLINE int64_t pad_to(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

}  // namespace sprat
