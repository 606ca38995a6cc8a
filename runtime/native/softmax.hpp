// Flash attention's running softmax (arXiv 2205.14135), LANES queries at a time: a block's scores become weights
// exp(score - largest), and what came before shrinks where the largest grew. Queries lie along the lanes, so that nothing
// is summed across them.
#pragma once

#include "runtime/native/gemm.hpp"

namespace {

using sprat::Attention;

constexpr float MASKED = -1e30f;  // exp gives 0; infinity would make NaN of a block that is masked throughout

struct Softmax {
    const Attention &a;
    float *largest, *total;  // (columns): of each query, so far
    int32_t *seen;           // (columns): rows from a.begin on
    float *scores;           // (rows of a block, GEMM_COLUMNS), and then the weights
    float shrink[GEMM_COLUMNS];

    void begin(int columns) {
        for (int i = 0; i < columns; ++i) {
            largest[i] = MASKED, total[i] = 0;
            seen[i] = int32_t(a.first_seen + least(i, a.n_queries - 1) / a.queries_per_token - a.begin);
        }
    }

    // The first panel of queries whose token sees a row of the block that begins at `first`: later ones see more.
    int first_panel(int64_t first) const {
        const int64_t unseen = (first - a.first_seen + 1) * a.queries_per_token;
        return unseen > 0 ? least(unseen, a.n_queries) / GEMM_COLUMNS * GEMM_COLUMNS : 0;
    }

    // Weights of queries `query` .., whose scores lie in `column` .., each times its row's factor; returns the heaviest.
    F soften(int64_t first, int n, int query, int column, const float *factor) {
        float *score = scores + column;
        const F before = load<F>(largest + query);
        F top = before, sum{}, heaviest{};
        if (first + n > a.first_seen) mask(first, n, query, score);
        for (int r = 0; r < n; ++r) top = max(top, load<F>(score + r * GEMM_COLUMNS));
        for (int r = 0; r < n; ++r) {
            const F weight = exp(load<F>(score + r * GEMM_COLUMNS) - top), scaled = weight * factor[r];
            sum += weight;
            heaviest = max(heaviest, scaled);
            store(score + r * GEMM_COLUMNS, scaled);
        }
        const F less = exp(before - top);
        store(largest + query, top);
        store(total + query, load<F>(total + query) * less + sum);
        store(shrink + column, less);
        return heaviest;
    }

    void finish() const {
        std::memcpy(a.largest, largest, a.n_queries * sizeof(float));
        std::memcpy(a.total, total, a.n_queries * sizeof(float));
    }

  private:
    void mask(int64_t first, int n, int query, float *score) const {
        const I rows = load<I>(seen + query) - int32_t(first - a.begin);
        for (int r = 0; r < n; ++r) {
            const F x = load<F>(score + r * GEMM_COLUMNS);
            store(score + r * GEMM_COLUMNS, rows > r ? x : all(MASKED));
        }
    }
};

// Hands out the parts of a scratch, 64 bytes aligned each; without one it only counts.
struct Arena {
    uint8_t *base;
    size_t used = 0;

    template <class T> T *take(int64_t n) {
        T *at = base ? reinterpret_cast<T *>(base + used) : nullptr;
        used += (size_t(n) * sizeof(T) + 63) / 64 * 64;
        return at;
    }

    Softmax softmax(const Attention &a, int columns, int block_rows) {
        return {a, take<float>(columns), take<float>(columns), take<int32_t>(columns), take<float>(block_rows * GEMM_COLUMNS), {}};
    }
    template <class W> Columns<W> columns(int n, int dim) {
        const int columns = round_up(n, LANES), words = round_up(dim, LANES * W::NUMBERS) / W::NUMBERS;
        return {take<typename W::Word>(int64_t(columns) * words), take<float>(columns), columns, words};
    }
};

}  // namespace
