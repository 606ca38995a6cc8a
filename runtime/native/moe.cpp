// Tokens are sorted by expert, so that each expert's bytes are read once. Three passes over all
// experts: gate and up with SiLU; quantizing to int8; down with the weighted sum.
//
// The first is split over (expert, row tile), so that no thread waits for an expert with many
// tokens. The last is split over tiles of output rows, each with all experts in order: threads
// never add to the same sums, and the order of additions does not depend on their number.
#include "runtime/native/moe.hpp"

#include <algorithm>
#include <numeric>

#include "runtime/native/route.hpp"

namespace sprat {

// One expert with its tokens; the shared MLP is one more job, with all of them.
struct MoeOps::Job {
    const Mlp *mlp;
    int64_t slice;
    const int32_t *tokens;  // nullptr for all
    const float *weights;   // nullptr for 1
    int64_t n_tokens;
    float *hidden = nullptr;  // (n_tokens, width)
    Activations input{};      // hidden, quantized

    int64_t width() const { return mlp->gate.rows; }
};

namespace {

// Rows of one task: two panels of kMaxNR rows. Of Q4_0 and 2048 columns 72 KB, which gemv.hpp reads
// as four streams of 18 KB.
constexpr int64_t kRowTile = 2 * kMaxNR;

struct Tile {
    int64_t job, row;
};

}  // namespace

// out (n, hidden) is the sum over all jobs, or has it added.
void MoeOps::run(std::vector<Job> &jobs, const Activations &input, int64_t n, float *out,
                 bool add) {
    int64_t n_hidden = 0;
    for (const Job &job : jobs) n_hidden += job.n_tokens * job.width();
    Frame frame = context_.frame();
    float *hidden = frame.get<float>(n_hidden);
    for (Job &job : jobs) {
        job.hidden = hidden;
        hidden += job.n_tokens * job.width();
    }
    gate_and_up(jobs, input);
    quantize_hidden(frame, jobs);
    down(jobs, n, out, input.k, add);
}

void MoeOps::gate_and_up(const std::vector<Job> &jobs, const Activations &input) {
    std::vector<Tile> tiles;
    int64_t n_bytes = 0;
    for (size_t j = 0; j < jobs.size(); ++j) {
        for (int64_t row = 0; row < jobs[j].width(); row += kRowTile)
            tiles.push_back({int64_t(j), row});
        n_bytes += 2 * jobs[j].n_tokens * jobs[j].width() * int64_t(jobs[j].mlp->gate.row_bytes);
    }
    context_.pool.each(int64_t(tiles.size()), n_bytes, [&](int64_t i, int thread) {
        const Job &job = jobs[tiles[i].job];
        const int64_t row = tiles[i].row, n_rows = std::min(kRowTile, job.width() - row);
        const Tile &then = tiles[std::min(i + 1, int64_t(tiles.size()) - 1)];
        const Job &next = jobs[then.job];
        Frame frame = context_.frame(thread);
        float *gate = job.hidden + row, *up = frame.get<float>(job.n_tokens * kRowTile);
        linear_.gemm(job.mlp->gate, job.slice, row, n_rows, input, job.tokens, job.n_tokens, gate,
                     job.width(), thread, job.mlp->up.at(job.slice, row));
        linear_.gemm(job.mlp->up, job.slice, row, n_rows, input, job.tokens, job.n_tokens, up,
                     n_rows, thread, next.mlp->gate.at(next.slice, then.row));
        for (int64_t t = 0; t < job.n_tokens; ++t, gate += job.width(), up += n_rows)
            context_.isa.silu_mul(gate, up, n_rows, gate);
    });
}

// Jobs of one width lie behind each other, the routed experts and then the shared MLP: two runs at
// most.
void MoeOps::quantize_hidden(Frame &frame, std::vector<Job> &jobs) {
    for (size_t first = 0, last = 0; first < jobs.size();) {
        const int64_t width = jobs[first].width();
        int64_t n_rows = 0;
        for (; last < jobs.size() && jobs[last].width() == width; ++last)
            n_rows += jobs[last].n_tokens;
        const Activations all = linear_.activations(frame, jobs[first].hidden, n_rows, width, true);
        for (int64_t row = 0; first < last; row += jobs[first++].n_tokens)
            jobs[first].input = all.from(row);
    }
}

void MoeOps::down(const std::vector<Job> &jobs, int64_t n, float *out, int64_t hidden_size,
                  bool add) {
    int64_t n_bytes = 0;
    for (const Job &job : jobs)
        n_bytes += job.n_tokens * hidden_size * int64_t(job.mlp->down.row_bytes);
    context_.pool.each(
        (hidden_size + kRowTile - 1) / kRowTile, n_bytes, [&](int64_t i, int thread) {
            const int64_t row = i * kRowTile, n_rows = std::min(kRowTile, hidden_size - row);
            Frame frame = context_.frame(thread);
            float *sums = frame.get<float>(n * n_rows), *part = frame.get<float>(n * n_rows);
            std::fill_n(sums, n * n_rows, 0.0f);
            for (const Job &job : jobs) {
                if (context_.pool.interrupted()) return;
                const bool is_last = &job == &jobs.back();
                const Job &next = is_last ? jobs.front() : *(&job + 1);
                linear_.gemm(job.mlp->down, job.slice, row, n_rows, job.input, nullptr,
                             job.n_tokens, part, n_rows, thread,
                             next.mlp->down.at(next.slice, is_last ? row + kRowTile : row));
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

// Tokens and weights of a routing (n, n_chosen), sorted by expert, and a job for each expert.
struct MoeOps::SortedJobs {
    std::vector<int32_t> tokens;
    std::vector<float> weights;
    std::vector<Job> jobs;

    SortedJobs(const Mlp &routed, const Mlp *shared, int64_t n, const int32_t *expert_ids,
               const float *unsorted, int n_chosen)
        : tokens(n * n_chosen), weights(n * n_chosen) {
        std::vector<int32_t> order(n * n_chosen);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return expert_ids[a] < expert_ids[b]; });
        for (size_t i = 0; i < order.size(); ++i) {
            const int32_t expert = expert_ids[order[i]];
            tokens[i] = order[i] / n_chosen;
            weights[i] = unsorted[order[i]];
            if (i == 0 || expert != jobs.back().slice)
                jobs.push_back({&routed, expert, &tokens[i], &weights[i], 0});
            ++jobs.back().n_tokens;
        }
        if (shared) jobs.push_back({shared, 0, nullptr, nullptr, n});
    }
};

void MoeOps::swiglu(const Mlp &mlp, const float *x, int64_t n, float *out) {
    std::vector<Job> jobs{{&mlp, 0, nullptr, nullptr, n}};
    Frame frame = context_.frame();
    run(jobs, linear_.activations(frame, x, n, mlp.gate.cols, wants_quantized(mlp)), n, out, false);
}

void MoeOps::experts(const Mlp &routed, const Mlp *shared, const float *x, int64_t n,
                     const int32_t *expert_ids, const float *weights, int n_chosen, float *out) {
    SortedJobs sorted(routed, shared, n, expert_ids, weights, n_chosen);
    const bool quantized = wants_quantized(routed) || (shared && wants_quantized(*shared));
    Frame frame = context_.frame();
    run(sorted.jobs, linear_.activations(frame, x, n, routed.gate.cols, quantized), n, out, false);
}

void MoeOps::gated_mlp(const GatedMlp &layer, float *x, int64_t n) {
    const Mlp &mlp = layer.mlp;
    std::vector<Job> jobs{{&mlp, 0, nullptr, nullptr, n}};
    Frame frame = context_.frame();
    run(jobs, linear_.normed(frame, layer.norm, x, n, mlp.gate.cols, wants_quantized(mlp)), n, x,
        true);
}

void MoeOps::moe(const Moe &layer, float *x, int64_t n) {
    Frame frame = context_.frame();
    const Activations input = normed(frame, layer, x, n);
    int32_t *expert_ids = frame.get<int32_t>(n * layer.spec.n_chosen);
    float *weights = frame.get<float>(n * layer.spec.n_chosen);
    route_normed(frame, layer, input, n, expert_ids, weights);
    add_experts(layer, input, x, n, expert_ids, weights);
}

void MoeOps::moe_route(const Moe &layer, const float *x, int64_t n, int32_t *expert_ids,
                       float *weights) {
    Frame frame = context_.frame();
    route_normed(frame, layer, normed(frame, layer, x, n), n, expert_ids, weights);
}

void MoeOps::moe_forward_routed(const Moe &layer, float *x, int64_t n, const int32_t *expert_ids,
                                const float *weights) {
    Frame frame = context_.frame();
    add_experts(layer, normed(frame, layer, x, n), x, n, expert_ids, weights);
}

Activations MoeOps::normed(Frame &frame, const Moe &layer, const float *x, int64_t n) {
    const bool shared = !layer.shared.is_absent() && wants_quantized(layer.shared);
    const bool quantized = shared || wants_quantized(layer.routed) || wants_quantized(layer.router);
    return linear_.normed(frame, layer.norm, x, n, layer.router.cols, quantized);
}

void MoeOps::route_normed(Frame &frame, const Moe &layer, const Activations &input, int64_t n,
                          int32_t *expert_ids, float *weights) {
    float *logits = frame.get<float>(n * layer.router.rows);
    linear_.project({{&layer.router, nullptr, logits}}, input, n);
    route(layer.spec, logits, layer.bias.data, n, expert_ids, weights);
}

void MoeOps::add_experts(const Moe &layer, const Activations &input, float *x, int64_t n,
                         const int32_t *expert_ids, const float *weights) {
    const Mlp *shared = layer.shared.is_absent() ? nullptr : &layer.shared;
    SortedJobs sorted(layer.routed, shared, n, expert_ids, weights, layer.spec.n_chosen);
    run(sorted.jobs, input, n, x, true);
}

}  // namespace sprat
