// What kernels read: packed weights as they lie in the file, and activations in the forms that products want.
//
// Plain data only. Objects for several instruction sets include this file, and an inline function that one of them
// compiled with its own instructions could be the copy that the linker keeps for all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/native/formats.hpp"

namespace sprat {

struct Matrix {
    const uint8_t *data;
    Format format;
    int64_t n_slices;  // experts or heads stacked; 1 for a plain matrix
    int64_t rows, cols;
    size_t row_bytes;

    const uint8_t *at(int64_t slice, int64_t row) const { return data + (slice * rows + row) * row_bytes; }
};

// Activations rounded to int8, 32 numbers to a scale: x = d * q. One record per token, so that a tile of tokens needs
// one pointer for each; rows are padded with zeros to whole groups of 256:
//   q int8 (k_padded) | d float (k_padded / 32) | sum32 int32 (k_padded / 32) | sum16 int32 (k_padded / 16)
// The sums are those of q: products fold a format's zero point or minimum through them, once per block.
struct Quantized {
    uint8_t *records;
    int64_t k_padded;  // a record takes 1.5 times as many bytes
};

struct Input {
    const float *x;  // (n, k)
    int64_t k;
    Quantized quantized;  // empty when only float weights meet this input
    int64_t second = 0;   // records from a token's own to that of its second digits, what the first ones left; 0 for none

    // The same from token `first` on.
    Input from(int64_t first) const;
};

// Some rows of a weight, times some tokens: out[i * out_stride + r] = row r . token tokens[i].
struct Product {
    const uint8_t *weights;
    const uint8_t *next;  // the rows that this thread wants afterwards: fetched meanwhile, never read here
    size_t row_bytes;
    int n_rows;
    const Input *input;
    const int32_t *tokens;  // nullptr for 0, 1, 2, ...
    int n_tokens;
    float *out;
    int64_t out_stride;
    uint8_t *scratch;  // product_scratch_bytes(n_tokens), 64-byte aligned, of one thread
};

// Flash attention of packed queries over cache rows; see attend_forms.hpp.
struct Rows {
    const uint8_t *data;
    int64_t stride;  // bytes from row to row
    bool floats;     // float32; else n_int8 numbers as codes, and binary16 behind them
    int n_int8;
    int group = 32;  // codes that share a scale

    // Of a row: codes | a scale (binary16) per group | the sum of its codes (int16) per group | binary16.
    int n_groups() const { return (n_int8 + group - 1) / group; }
    int scales_at() const { return n_groups() * group; }
    int sums_at() const { return n_groups() * (group + 2); }
    int halves_at() const { return n_groups() * (group + 4); }
};

struct Attention {
    const float *q;         // (n_queries, dim), scaled; token-major, so that what they see grows
    int n_queries, dim, value_dim;
    int queries_per_token;  // consecutive queries that share a token
    int64_t first_seen;     // rows that the first token sees; each later token sees one more
    int64_t begin, end;     // cache rows to attend to
    Rows keys, values;
    // Expanded latent attention only: keys [k_b . latent, rope], values v_b . latent.
    const float *k_bt = nullptr;  // (nope, rank)
    const float *v_b = nullptr;   // (value_dim, rank)
    int rank = 0, nope = 0;        // rank 0: keys and values lie in the cache as they are
    // Results: unnormalised sums (n_queries, value_stride), and each query's largest score and sum of weights.
    float *out, *largest, *total;
    int value_stride;
    uint8_t *scratch;  // attention_scratch_bytes(*this)
};

}  // namespace sprat
