// Gated MLPs: dense, or a mixture's. Tokens are sorted by expert, so that each expert's bytes are read once.
//
// Three passes: gate and up with SiLU, rounding to int8, down with the weighted sum. The first is split over
// (expert, block of rows), so that no thread waits for an expert with many tokens; the last over blocks of output rows,
// each with all experts in order, so that sums never meet and do not depend on the number of threads.
#include <algorithm>
#include <numeric>

#include "runtime/native/kernels.hpp"

namespace sprat {

// One expert with its tokens; the shared MLP is one more job, with all of them.
struct KernelSet::Job {
    const Mlp *mlp;
    int64_t slice;
    const int32_t *tokens;  // nullptr for all
    const float *weights;   // nullptr for 1
    int64_t n_tokens;
    float *hidden = nullptr;  // (n_tokens, width)
    Input input{};            // hidden, rounded

    int64_t width() const { return mlp->gate.rows; }
};

namespace {

constexpr int64_t ROWS = 64;  // of a piece: two panels; of Q4_0 and width 2048 72 KB, in four streams

struct Piece {
    int64_t job, row;
};

}  // namespace

// out (n, hidden) is the sum over all jobs, or gets it added.
void KernelSet::mix(std::vector<Job> &jobs, const Input &input, int64_t n, float *out, bool add) {
    int64_t n_numbers = 0;
    for (const Job &job : jobs) n_numbers += job.n_tokens * job.width();
    float *hidden = hidden_.get<float>(n_numbers);
    for (Job &job : jobs) {
        job.hidden = hidden;
        hidden += job.n_tokens * job.width();
    }
    gate_and_up(jobs, input);
    round_hidden(jobs);
    down(jobs, n, out, input.k, add);
}

void KernelSet::gate_and_up(const std::vector<Job> &jobs, const Input &input) {
    std::vector<Piece> pieces;
    int64_t n_bytes = 0;
    for (size_t j = 0; j < jobs.size(); ++j) {
        for (int64_t row = 0; row < jobs[j].width(); row += ROWS) pieces.push_back({int64_t(j), row});
        n_bytes += 2 * jobs[j].n_tokens * jobs[j].width() * int64_t(jobs[j].mlp->gate.row_bytes);
    }
    pool_.each(int64_t(pieces.size()), n_bytes, [&](int64_t i, int thread) {
        const Job &job = jobs[pieces[i].job];
        const int64_t row = pieces[i].row, n_rows = std::min(ROWS, job.width() - row);
        float *up = staging_[thread].get<float>(job.n_tokens * ROWS);
        float *gate = job.hidden + row;
        const uint8_t *ups = job.mlp->up.at(job.slice, row);
        const Piece &then = pieces[std::min(i + 1, int64_t(pieces.size()) - 1)];
        const Job &next = jobs[then.job];
        product(job.mlp->gate, job.slice, row, n_rows, input, job.tokens, job.n_tokens, gate, job.width(), thread, ups);
        product(job.mlp->up, job.slice, row, n_rows, input, job.tokens, job.n_tokens, up, n_rows, thread,
                next.mlp->gate.at(next.slice, then.row));
        for (int64_t t = 0; t < job.n_tokens; ++t, gate += job.width(), up += n_rows)
            isa_.silu_mul(gate, up, n_rows, gate);
    });
}

// Jobs of one width lie behind each other, the routed experts and then the shared MLP: two runs at most.
void KernelSet::round_hidden(std::vector<Job> &jobs) {
    Buffer *buffer = &routed_inputs_;
    for (size_t first = 0, last = 0; first < jobs.size(); buffer = &shared_inputs_) {
        int64_t n_rows = 0;
        for (; last < jobs.size() && jobs[last].width() == jobs[first].width(); ++last) n_rows += jobs[last].n_tokens;
        const Input all = prepare(*buffer, jobs[first].hidden, n_rows, jobs[first].width(), true);
        for (int64_t row = 0; first < last; row += jobs[first++].n_tokens) jobs[first].input = all.from(row);
    }
}

void KernelSet::down(const std::vector<Job> &jobs, int64_t n, float *out, int64_t hidden_size, bool add) {
    int64_t n_bytes = 0;
    for (const Job &job : jobs) n_bytes += job.n_tokens * hidden_size * int64_t(job.mlp->down.row_bytes);
    pool_.each((hidden_size + ROWS - 1) / ROWS, n_bytes, [&](int64_t i, int thread) {
        const int64_t row = i * ROWS, n_rows = std::min(ROWS, hidden_size - row);
        float *sums = staging_[thread].get<float>(2 * n * ROWS), *part = sums + n * ROWS;
        std::fill_n(sums, n * n_rows, 0.0f);
        for (const Job &job : jobs) {
            const Job &next = &job == &jobs.back() ? jobs.front() : *(&job + 1);
            const int64_t then = &job == &jobs.back() ? row + ROWS : row;
            product(job.mlp->down, job.slice, row, n_rows, job.input, nullptr, job.n_tokens, part, n_rows, thread,
                    next.mlp->down.at(next.slice, then));
            for (int64_t t = 0; t < job.n_tokens; ++t) {
                float *to = sums + (job.tokens ? job.tokens[t] : t) * n_rows;
                const float weight = job.weights ? job.weights[t] : 1.0f;
                for (int64_t r = 0; r < n_rows; ++r) to[r] += weight * part[t * n_rows + r];
            }
        }
        for (int64_t t = 0; t < n; ++t)
            for (int64_t r = 0; r < n_rows; ++r) {
                float &to = out[t * hidden_size + row + r];
                to = add ? to + sums[t * n_rows + r] : sums[t * n_rows + r];
            }
    });
}

void KernelSet::swiglu(const Mlp &mlp, const float *x, int64_t n, float *out) {
    std::vector<Job> jobs{{&mlp, 0, nullptr, nullptr, n}};
    mix(jobs, prepare(inputs_, x, n, mlp.gate.cols, wants_quantized(mlp)), n, out, false);
}

void KernelSet::gated_mlp(const GatedMlp &layer, float *x, int64_t n) {
    std::vector<Job> jobs{{&layer.mlp, 0, nullptr, nullptr, n}};
    mix(jobs, normed(layer.norm, x, n, layer.mlp.gate.cols, wants_quantized(layer.mlp)), n, x, true);
}

// Jobs of a choice (n, n_chosen): tokens and weights sorted by expert, and one job for each of those.
struct KernelSet::Sorted {
    std::vector<int32_t> tokens;
    std::vector<float> weights;
    std::vector<Job> jobs;

    Sorted(const Mlp &routed, const Mlp *shared, int64_t n, const int32_t *choice, const float *unsorted, int n_chosen)
        : tokens(n * n_chosen), weights(n * n_chosen) {
        std::vector<int32_t> order(n * n_chosen);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return choice[a] < choice[b]; });
        for (size_t i = 0; i < order.size(); ++i) {
            tokens[i] = order[i] / n_chosen;
            weights[i] = unsorted[order[i]];
            if (i == 0 || choice[order[i]] != choice[order[i - 1]])
                jobs.push_back({&routed, choice[order[i]], &tokens[i], &weights[i], 0});
            ++jobs.back().n_tokens;
        }
        if (shared) jobs.push_back({shared, 0, nullptr, nullptr, n});
    }
};

void KernelSet::experts(const Mlp &routed, const Mlp *shared, const float *x, int64_t n, const int32_t *choice,
                        const float *weights, int n_chosen, float *out) {
    Sorted sorted(routed, shared, n, choice, weights, n_chosen);
    const bool quantized = wants_quantized(routed) || (shared && wants_quantized(*shared));
    mix(sorted.jobs, prepare(inputs_, x, n, routed.gate.cols, quantized), n, out, false);
}

Input KernelSet::normed(const Moe &layer, const float *x, int64_t n) {
    const bool shared = !layer.shared.is_absent() && wants_quantized(layer.shared);
    const bool quantized = shared || wants_quantized(layer.routed) || wants_quantized(layer.router);
    return normed(layer.norm, x, n, layer.router.cols, quantized);
}

void KernelSet::moe(const Moe &layer, float *x, int64_t n) {
    const Input input = normed(layer, x, n);
    int32_t *choice = choice_.get<int32_t>(n * layer.spec.n_chosen);
    float *weights = weights_.get<float>(n * layer.spec.n_chosen);
    route_layer(layer, input, n, choice, weights);
    add_experts(layer, input, x, n, choice, weights);
}

void KernelSet::moe_route(const Moe &layer, const float *x, int64_t n, int32_t *choice, float *weights) {
    route_layer(layer, normed(layer, x, n), n, choice, weights);
}

void KernelSet::moe_forward_routed(const Moe &layer, float *x, int64_t n, const int32_t *choice, const float *weights) {
    add_experts(layer, normed(layer, x, n), x, n, choice, weights);
}

void KernelSet::route_layer(const Moe &layer, const Input &input, int64_t n, int32_t *choice, float *weights) {
    float *logits = scores_.get<float>(n * layer.router.rows);
    project({{&layer.router, nullptr, logits}}, input, n);
    route(layer.spec, logits, layer.bias.data, n, choice, weights);
}

void KernelSet::add_experts(const Moe &layer, const Input &input, float *x, int64_t n, const int32_t *choice,
                            const float *weights) {
    Sorted sorted(layer.routed, layer.shared.is_absent() ? nullptr : &layer.shared, n, choice, weights, layer.spec.n_chosen);
    mix(sorted.jobs, input, n, x, true);
}

}  // namespace sprat
