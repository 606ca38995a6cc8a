// Attention over a range of cache rows, flash style (arXiv 2205.14135): scores live only as long as their block.
//
// All queries of a task share each block of rows: it is widened to float32 once, its keys transposed, and two matrix
// products do the rest. For absorbed latent attention those are all heads of a token (one pass over the latents), for
// grouped-query attention the heads that share a key head.
#pragma once

#include "runtime/native/gemm.hpp"
#include "runtime/native/matrix.hpp"

namespace {

using sprat::Attention;
using sprat::Rows;

constexpr int BLOCK_ROWS = 64;    // keys of 576 numbers and values of 512: 280 KB, in L2
constexpr int QUERY_ROWS = 24;    // scores of 24 queries and 64 rows: 6 KB, in L1
constexpr float MASKED = -1e30f;  // exp gives 0; infinity would make NaN of a block that is masked throughout

// The buffers of one task, one after the other in its scratch.
struct Buffers {
    float *keys;    // (dim, BLOCK_ROWS): transposed
    float *values;  // (BLOCK_ROWS, value_stride)
    float *rows;    // (BLOCK_ROWS, dim or rank + rope): widened
    float *latent;  // (rank + rope, BLOCK_ROWS): transposed, for expanded attention
    float *scores;  // (QUERY_ROWS, BLOCK_ROWS)
    int row_stride;
};

int round_up(int n) { return (n + 15) / 16 * 16; }
int row_dim(const Attention &a) { return a.rank ? a.rank + a.dim - a.nope : a.dim; }

Buffers lay_out(const Attention &a) {
    const int row_stride = round_up(row_dim(a));
    Buffers b{};
    b.row_stride = row_stride;
    float *at = reinterpret_cast<float *>(a.scratch);
    const auto take = [&](int64_t n) { return at += n, at - n; };
    b.keys = take(int64_t(round_up(a.dim)) * BLOCK_ROWS);
    b.values = take(int64_t(BLOCK_ROWS) * a.value_stride);
    b.rows = take(int64_t(BLOCK_ROWS) * row_stride);
    b.latent = take(a.rank ? int64_t(row_stride) * BLOCK_ROWS : 0);
    b.scores = take(QUERY_ROWS * BLOCK_ROWS);
    return b;
}

size_t attention_scratch_bytes(const Attention &a) {
    const int64_t n = round_up(a.dim) + a.value_stride + (a.rank ? 2 : 1) * round_up(row_dim(a)) + QUERY_ROWS;
    return size_t(n) * BLOCK_ROWS * sizeof(float);
}

// Rows [first, first + n) as float32, `stride` apart, zeros up to the stride and up to BLOCK_ROWS.
void widen(const Rows &from, int64_t first, int n, int dim, float *out, int stride) {
    for (int r = 0; r < BLOCK_ROWS; ++r) {
        float *to = out + int64_t(r) * stride;
        int i = 0;
        if (r < n && from.half) {
            const uint16_t *row = static_cast<const uint16_t *>(from.data) + (first + r) * from.stride;
            for (; i + LANES <= dim; i += LANES) store(to + i, load_half(row + i));
            if (i < dim) {
                uint16_t rest[LANES] = {};
                std::memcpy(rest, row + i, (dim - i) * sizeof(uint16_t));
                const F numbers = load_half(rest);
                std::memcpy(to + i, &numbers, (dim - i) * sizeof(float));
                i = dim;
            }
        } else if (r < n) {
            std::memcpy(to, static_cast<const float *>(from.data) + (first + r) * from.stride, dim * sizeof(float));
            i = dim;
        }
        std::memset(to + i, 0, (stride - i) * sizeof(float));
    }
}

// (BLOCK_ROWS, stride) to (stride, BLOCK_ROWS); stride is a multiple of 16.
void transpose_block(const float *rows, int stride, float *out) {
    for (int r = 0; r < BLOCK_ROWS; r += LANES)
        for (int i = 0; i < stride; i += LANES)
            transpose(reinterpret_cast<const uint8_t *>(rows + int64_t(r) * stride + i), 4 * int64_t(stride),
                      reinterpret_cast<uint8_t *>(out + int64_t(i) * BLOCK_ROWS + r), 4 * BLOCK_ROWS);
}

// Keys and values of one block: copies of the cache's rows, or their expansion for one head.
void fill(const Attention &a, const Buffers &b, int64_t first, int n) {
    widen(a.keys, first, n, row_dim(a), b.rows, b.row_stride);
    if (!a.rank) {
        transpose_block(b.rows, b.row_stride, b.keys);
        widen(a.values, first, n, a.value_dim, b.values, a.value_stride);
        return;
    }
    transpose_block(b.rows, b.row_stride, b.latent);
    const int64_t expanded = int64_t(a.nope) * BLOCK_ROWS, rope = int64_t(a.dim - a.nope) * BLOCK_ROWS;
    std::memset(b.keys, 0, expanded * sizeof(float));
    gemm(a.nope, BLOCK_ROWS, a.rank, a.k_bt, a.rank, b.latent, BLOCK_ROWS, b.keys, BLOCK_ROWS);
    std::memcpy(b.keys + expanded, b.latent + int64_t(a.rank) * BLOCK_ROWS, rope * sizeof(float));
    std::memset(b.values, 0, int64_t(BLOCK_ROWS) * a.value_stride * sizeof(float));
    gemm(BLOCK_ROWS, a.value_stride, a.rank, b.rows, b.row_stride, a.v_bt, a.value_stride, b.values, a.value_stride);
}

// Scores to weights exp(score - largest); what came before shrinks where the largest grew.
INLINE void soften(const Attention &a, int query, float *scores, int n_seen) {
    float block_largest = MASKED;
    for (int i = n_seen; i < BLOCK_ROWS; ++i) scores[i] = MASKED;
    F top = all(MASKED);
    for (int i = 0; i < BLOCK_ROWS; i += LANES) top = max(top, load<F>(scores + i));
    for (int lane = 0; lane < LANES; ++lane) block_largest = scalar_max(block_largest, top[lane]);
    const float before = a.largest[query], after = scalar_max(before, block_largest);
    F total{};
    for (int i = 0; i < BLOCK_ROWS; i += LANES) {
        const F weight = exp(load<F>(scores + i) - after);
        store(scores + i, weight);
        total += weight;
    }
    a.largest[query] = after;
    if (after > before) {
        const float shrink = exp(all(before - after))[0];
        a.total[query] *= shrink;
        float *out = a.out + int64_t(query) * a.value_stride;
        for (int i = 0; i < a.value_stride; i += LANES) store(out + i, load<F>(out + i) * shrink);
    }
    a.total[query] += sum(total);
}

void attend_block(const Attention &a, const Buffers &b, int64_t first, int n) {
    // Queries whose token sees none of the block come first: skip them.
    const int64_t unseen_tokens = first - a.first_seen + 1;
    const int start = unseen_tokens > 0 ? least(unseen_tokens * a.queries_per_token, a.n_queries) : 0;
    for (int query = start; query < a.n_queries; query += QUERY_ROWS) {
        const int m = least(a.n_queries - query, QUERY_ROWS);
        std::memset(b.scores, 0, m * BLOCK_ROWS * sizeof(float));
        gemm(m, BLOCK_ROWS, a.dim, a.q + int64_t(query) * a.dim, a.dim, b.keys, BLOCK_ROWS, b.scores, BLOCK_ROWS);
        for (int i = 0; i < m; ++i) {
            const int64_t seen = a.first_seen + (query + i) / a.queries_per_token;
            soften(a, query + i, b.scores + i * BLOCK_ROWS, least(seen - first, n));
        }
        gemm(m, a.value_stride, n, b.scores, BLOCK_ROWS, b.values, a.value_stride,
             a.out + int64_t(query) * a.value_stride, a.value_stride);
    }
}

void attend(const Attention &a) {
    const Buffers b = lay_out(a);
    for (int i = 0; i < a.n_queries; ++i) a.largest[i] = MASKED, a.total[i] = 0;
    std::memset(a.out, 0, int64_t(a.n_queries) * a.value_stride * sizeof(float));
    const int64_t last_seen = a.first_seen + (a.n_queries - 1) / a.queries_per_token;
    const int64_t end = a.end < last_seen ? a.end : last_seen;
    for (int64_t first = a.begin; first < end; first += BLOCK_ROWS) {
        const int n = least(end - first, BLOCK_ROWS);
        fill(a, b, first, n);
        attend_block(a, b, first, n);
    }
}

}  // namespace
