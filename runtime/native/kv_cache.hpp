// KV entries: what attention reads of earlier tokens, as runtime/cache/entries.py lays them out.
#pragma once

#include "runtime/native/matrix.hpp"

namespace sprat {

// Keys, values or latents of consecutive tokens, one entry per token, in one of three forms:
//
//   float32, float16   the elements
//   int8               | codes: int8 x n_int8 | a scale (f16) per group
//                      | the sum of its codes (int16) per group | f16 tail |
//
// The tail holds the elements that stay in float16, the rotated ones of a latent. Codes are padded
// to whole groups.
struct KvEntries {
    const uint8_t *data;
    int64_t stride;   // bytes from entry to entry
    bool is_float32;  // else n_int8 elements as codes (0 of them: float16), and float16 behind them
    int n_int8;
    int group = 32;  // codes that share a scale

    SPRAT_ALWAYS_INLINE int n_groups() const { return (n_int8 + group - 1) / group; }
    SPRAT_ALWAYS_INLINE int scales_at() const { return n_groups() * group; }
    SPRAT_ALWAYS_INLINE int sums_at() const { return n_groups() * (group + 2); }
    SPRAT_ALWAYS_INLINE int f16_tail_at() const { return n_groups() * (group + 4); }
};

// The K or V buffer of one layer, for all tokens that fit. New tokens' entries are written behind
// the n_past that are there.
struct KvBuffer {
    KvEntries entries;   // of the first head
    int64_t head_bytes;  // from head to head
    int64_t n_past;

    SPRAT_ALWAYS_INLINE KvEntries of_head(int64_t h) const {
        KvEntries own = entries;
        own.data += h * head_bytes;
        return own;
    }
};

// The buffers of the sequences that the tokens of a pass belong to: one for all of them, or, where
// each token is of a sequence of its own, one for each.
struct KvBuffers {
    const KvBuffer *of_sequence;
    int64_t n_sequences;
};

// Writes entry `i` from `n` elements, with the bytes that NumPy's twin writes.
void store_entry(const KvEntries &entries, int64_t i, const float *x, int64_t n);

}  // namespace sprat
