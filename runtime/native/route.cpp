// Which experts a token goes to (arXiv 2405.04434, eq. 21; arXiv 2412.19437, eq. 13 to 16); the twin of
// ReferenceKernels.route. A token takes microseconds: no threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/native/kernels.hpp"

namespace sprat {
namespace {

constexpr float NEVER = -std::numeric_limits<float>::infinity();

void score(const MoeSpec &moe, const float *logits, std::vector<float> &scores) {
    if (moe.sigmoid) {
        for (int e = 0; e < moe.n_experts; ++e) scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
        return;
    }
    const float largest = *std::max_element(logits, logits + moe.n_experts);
    float total = 0;
    for (int e = 0; e < moe.n_experts; ++e) total += scores[e] = std::exp(logits[e] - largest);
    for (float &s : scores) s /= total;
}

// The n best of `values`, best first; of equal ones the lower index.
void best(const std::vector<float> &values, int n, std::vector<int> &indices) {
    indices.resize(values.size());
    std::iota(indices.begin(), indices.end(), 0);
    const auto better = [&](int a, int b) { return values[a] > values[b] || (values[a] == values[b] && a < b); };
    std::partial_sort(indices.begin(), indices.begin() + n, indices.end(), better);
    indices.resize(n);
}

// Minus infinity for every expert outside the best groups.
void limit_to_groups(const MoeSpec &moe, std::vector<float> &values) {
    const int size = moe.n_experts / moe.n_groups;
    std::vector<float> groups(moe.n_groups);
    for (int g = 0; g < moe.n_groups; ++g) {
        float first = NEVER, second = NEVER;
        for (int e = g * size; e < (g + 1) * size; ++e) {
            if (values[e] > first) second = first, first = values[e];
            else second = std::max(second, values[e]);
        }
        groups[g] = moe.top2_groups && size > 1 ? first + second : first;
    }
    std::vector<int> kept;
    best(groups, moe.n_groups_chosen, kept);
    for (int e = 0; e < moe.n_experts; ++e)
        if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) values[e] = NEVER;
}

}  // namespace

void KernelSet::route(const MoeSpec &moe, const float *logits, const float *bias, int64_t n, int32_t *choice, float *weights) {
    std::vector<float> scores(moe.n_experts), values;
    std::vector<int> chosen;
    for (int64_t t = 0; t < n; ++t, choice += moe.n_chosen, weights += moe.n_chosen) {
        score(moe, logits + t * moe.n_experts, scores);
        values = scores;
        for (int e = 0; bias && e < moe.n_experts; ++e) values[e] += bias[e];
        if (moe.n_groups_chosen < moe.n_groups) limit_to_groups(moe, values);
        best(values, moe.n_chosen, chosen);
        float total = 0;
        for (int i = 0; i < moe.n_chosen; ++i) total += scores[chosen[i]];
        const float factor = moe.normalize ? moe.scaling / (total + 1e-20f) : moe.scaling;
        for (int i = 0; i < moe.n_chosen; ++i) {
            choice[i] = chosen[i];
            weights[i] = scores[chosen[i]] * factor;
        }
    }
}

}  // namespace sprat
