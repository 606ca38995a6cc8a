// The read bandwidth of memory: the upper limit of a product with one token.
#pragma once

#include "runtime/native/threads/pool.hpp"

namespace sprat {

// Reads every byte once, with all threads, and does nothing with it. Returns something of them, so
// that the compiler cannot leave the reads out.
uint64_t read_all(Pool &pool, const uint8_t *data, int64_t n_bytes);

}  // namespace sprat
