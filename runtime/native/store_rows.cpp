#include "runtime/native/store_rows.hpp"

#include <cstring>

#include "quant/native/codec.h"

namespace sprat {
namespace {

const Pack PACK_HALF = f16_codec().pack[0], PACK_Q8_0 = q8_0_codec().pack[0];

}  // namespace

void store_row(const Rows &rows, int64_t r, const float *x, int64_t n) {
    uint8_t *to = const_cast<uint8_t *>(rows.data) + r * rows.stride;
    if (rows.floats) {
        std::memcpy(to, x, n * sizeof(float));
        return;
    }
    const int64_t whole = rows.n_int8 / 32, rest = rows.n_int8 % 32;
    PACK_Q8_0(x, to, whole);
    to += 34 * whole;
    if (rest) {  // the last block is filled up with zeros
        float last[32] = {};
        std::memcpy(last, x + 32 * whole, rest * sizeof(float));
        PACK_Q8_0(last, to, 1);
        to += 34;
    }
    PACK_HALF(x + rows.n_int8, to, n - rows.n_int8);
}

}  // namespace sprat
