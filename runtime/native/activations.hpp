// Where the fields of one token's record lie (matrix.hpp: Quantized).
#pragma once

#include "runtime/native/matrix.hpp"

namespace {

using sprat::Quantized;

struct Token {
    int8_t *q;
    float *d;
    int32_t *sum32, *sum16;
};

INLINE Token token_of(const Quantized &all, int64_t token) {
    const int64_t k = all.k_padded;
    uint8_t *record = all.records + token * k * 3 / 2;
    return {reinterpret_cast<int8_t *>(record), reinterpret_cast<float *>(record + k),
            reinterpret_cast<int32_t *>(record + k * 9 / 8), reinterpret_cast<int32_t *>(record + k * 5 / 4)};
}

}  // namespace
