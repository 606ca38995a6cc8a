// Writing what attention reads: rows of a cache, as runtime/cache/rows.py keeps them.
#pragma once

#include "runtime/native/matrix.hpp"

namespace sprat {

// Row `r` from `n` numbers: float32, or rows.n_int8 of them as codes and the rest in binary16. The bytes are those of
// NumPy.
void store_row(const Rows &rows, int64_t r, const float *x, int64_t n);

}  // namespace sprat
