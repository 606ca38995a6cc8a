// Operands of the kernels: packed weights in the layout of the file, and activations in the formats
// that products take.
//
// Plain data only. Objects for several instruction sets include this file, and the linker keeps one
// copy of an inline function for all of them: it must not be one that was compiled with AVX-512. So
// the members here are always inlined.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/native/formats.hpp"

#define SPRAT_ALWAYS_INLINE inline __attribute__((always_inline))

namespace sprat {

// (n_slices, rows, cols), row-major, each row packed in blocks along cols.
struct Matrix {
    const uint8_t *data;
    Format format;
    int64_t n_slices;  // experts or heads stacked; 1 for a plain matrix
    int64_t rows, cols;
    size_t row_bytes;

    SPRAT_ALWAYS_INLINE const uint8_t *at(int64_t slice, int64_t row) const {
        return data + (slice * rows + row) * row_bytes;
    }
};

// Activations in int8, 32 elements to a scale (as Q8_0): x ~ d * q. One record per token, so that a
// tile of tokens needs one pointer for each; rows are padded with zeros to whole groups of 256:
//
//   | q: int8 x k | d: float x k/32 | sum32: int32 x k/32 | sum16: int32 x k/16 |
//   0             k                9/8 k                 5/4 k                 3/2 k bytes
//
// sum32 and sum16 are the sums of 32 and of 16 q. A product applies a format's zero point or
// minimum through them, once per block instead of once per element:
//   sum (scale * (code - zero)) * q = scale * (sum code * q - zero * sum q).
struct QuantizedActivations {
    uint8_t *records;
    int64_t k_padded;

    SPRAT_ALWAYS_INLINE int64_t record_bytes() const { return k_padded * 3 / 2; }
};

// x (n, k), and the same in int8 where block formats meet it.
struct Activations {
    const float *x;
    int64_t k;
    QuantizedActivations quantized;  // empty when only float weights meet this input
    // Exact products quantize what int8 left of x a second time: x ~ d q + d' q'. The record of
    // token t's residual is that of token t + residual; 0 for none.
    int64_t residual = 0;

    // The same from token `first` on.
    Activations from(int64_t first) const;
};

}  // namespace sprat
