// The table of functions that each instruction set fills, and the choice among them.
#pragma once

#include "runtime/native/matrix.hpp"

namespace sprat {

struct Isa {
    const char *name;
    void (*product[N_FORMATS])(const Product &);
    void (*dequantize[N_FORMATS])(const uint8_t *row, int64_t k, float *out);
    void (*quantize)(const float *x, int64_t k, const Quantized &into, int64_t token);
    void (*silu_mul)(const float *gate, const float *up, int64_t n, float *out);
    void (*rms_norm)(const float *x, const float *gain, float eps, int64_t k, float *out);
    void (*attend)(const Attention &);
    size_t (*attention_scratch_bytes)(const Attention &);
    int value_lanes;  // value_stride must be a multiple of it
};

// Best first; only those that this processor runs.
const Isa *const *usable_isas(int &n);

// The best one, or the one called name. nullptr when this processor lacks it.
const Isa *find_isa(const char *name);

static inline int64_t pad_to(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

constexpr int LARGEST_PANEL = 32;  // rows; many_tokens.hpp

// A panel of 1024 columns, with room to unpack it, and the sums of all tokens; see many_tokens.hpp.
static inline size_t product_scratch_bytes(int64_t n_tokens) { return 64 * 1024 + (n_tokens + 8) * LARGEST_PANEL * sizeof(float); }

}  // namespace sprat
