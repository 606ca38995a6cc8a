// Offsets of the fields of one token's record (matrix.hpp: QuantizedActivations).
#pragma once

#include "runtime/native/gemm/task.hpp"

namespace {

using sprat::GemmTask;
using sprat::QuantizedActivations;

struct Token {
    int8_t *q;
    float *d;
    int32_t *sum32, *sum16;
};

INLINE Token token_of(const QuantizedActivations &all, int64_t token) {
    const int64_t k = all.k_padded;
    uint8_t *record = all.records + token * k * 3 / 2;
    return {reinterpret_cast<int8_t *>(record), reinterpret_cast<float *>(record + k),
            reinterpret_cast<int32_t *>(record + k * 9 / 8),
            reinterpret_cast<int32_t *>(record + k * 5 / 4)};
}

// Token `i` of those that the task lists.
INLINE Token token_of(const GemmTask &task, int i) {
    return token_of(task.input->quantized, task.tokens ? task.tokens[i] : i);
}

}  // namespace
