// The online softmax of FlashAttention (arXiv 2205.14135, algorithm 1), kLanes queries at a time.
// Queries lie along the lanes, so that nothing is summed across them.
#pragma once

#include "runtime/native/flash/task.hpp"
#include "runtime/native/flash/tiles.hpp"

namespace {

using sprat::AttentionTask;

// exp gives 0; infinity would make NaN of a block that is masked throughout.
constexpr float kMasked = -1e30f;

// For each block of scores s of a query:
//   m_new = max(m, max s)    p = exp(s - m_new)    alpha = exp(m - m_new)
//   l = l * alpha + sum p    out = out * alpha + p . values
struct OnlineSoftmax {
    const AttentionTask &task;
    float *m, *l;     // (columns): of each query, so far
    int32_t *n_seen;  // (columns): entries that a query sees, counted from task.begin
    float *scores;    // (entries of a block, kAttnNR), and then the weights p
    float alpha[kAttnNR];

    void begin(int columns) {
        for (int i = 0; i < columns; ++i) {
            m[i] = kMasked, l[i] = 0;
            const int query = min(i, task.n_queries - 1);
            n_seen[i] = int32_t(task.first_seen + query / task.queries_per_token - task.begin);
        }
    }

    // The first panel of queries whose token sees an entry of the block that begins at `first`:
    // later tokens see more.
    int first_panel(int64_t first) const {
        const int64_t unseen = (first - task.first_seen + 1) * task.queries_per_token;
        return unseen > 0 ? min(unseen, task.n_queries) / kAttnNR * kAttnNR : 0;
    }

    // Scores of queries `query` .. in columns `column` .. become weights, each times its entry's
    // factor; returns the largest of these.
    F update(int64_t first, int n, int query, int column, const float *factor) {
        float *score = scores + column;
        const F before = load<F>(m + query);
        F m_new = before, sum{}, largest{};
        if (first + n > task.first_seen) mask(first, n, query, score);
        for (int r = 0; r < n; ++r) m_new = max(m_new, load<F>(score + r * kAttnNR));
        for (int r = 0; r < n; ++r) {
            const F p = exp(load<F>(score + r * kAttnNR) - m_new), scaled = p * factor[r];
            sum += p;
            largest = max(largest, scaled);
            store(score + r * kAttnNR, scaled);
        }
        const F rescale = exp(before - m_new);
        store(m + query, m_new);
        store(l + query, load<F>(l + query) * rescale + sum);
        store(alpha + column, rescale);
        return largest;
    }

    void finish() const {
        std::memcpy(task.m, m, task.n_queries * sizeof(float));
        std::memcpy(task.l, l, task.n_queries * sizeof(float));
    }

  private:
    void mask(int64_t first, int n, int query, float *score) const {
        const I visible = load<I>(n_seen + query) - int32_t(first - task.begin);
        for (int r = 0; r < n; ++r) {
            const F x = load<F>(score + r * kAttnNR);
            store(score + r * kAttnNR, visible > r ? x : broadcast(kMasked));
        }
    }
};

}  // namespace
