// The twin of ReferenceKernels.route.
#include "runtime/native/route.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace sprat {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void score(const MoeSpec &spec, const float *logits, std::vector<float> &scores) {
    if (spec.sigmoid) {
        for (int e = 0; e < spec.n_experts; ++e) scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
        return;
    }
    const float largest = *std::max_element(logits, logits + spec.n_experts);
    float total = 0;
    for (int e = 0; e < spec.n_experts; ++e) total += scores[e] = std::exp(logits[e] - largest);
    for (float &s : scores) s /= total;
}

// NaN comes before all numbers, so that it is chosen and shows in the weights.
bool ranks_above(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

// Indices of the n largest values, largest first; of equal ones the lower index.
void top_k(const std::vector<float> &values, int n, std::vector<int> &indices) {
    indices.resize(values.size());
    std::iota(indices.begin(), indices.end(), 0);
    const auto better = [&](int a, int b) {
        return ranks_above(values[a], values[b]) || (!ranks_above(values[b], values[a]) && a < b);
    };
    std::partial_sort(indices.begin(), indices.begin() + n, indices.end(), better);
    indices.resize(n);
}

// Minus infinity for every expert outside the best groups.
void limit_to_groups(const MoeSpec &spec, std::vector<float> &values) {
    const int size = spec.n_experts / spec.n_groups;
    std::vector<float> groups(spec.n_groups);
    for (int g = 0; g < spec.n_groups; ++g) {
        float first = kNever, second = kNever;
        for (int e = g * size; e < (g + 1) * size; ++e) {
            if (ranks_above(values[e], first)) second = first, first = values[e];
            else if (ranks_above(values[e], second)) second = values[e];
        }
        groups[g] = spec.top2_groups && size > 1 ? first + second : first;
    }
    std::vector<int> kept;
    top_k(groups, spec.n_groups_chosen, kept);
    for (int e = 0; e < spec.n_experts; ++e)
        if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) values[e] = kNever;
}

}  // namespace

void route(const MoeSpec &spec, const float *logits, const float *bias, int64_t n,
           int32_t *expert_ids, float *weights) {
    std::vector<float> scores(spec.n_experts), values;
    std::vector<int> chosen;
    for (int64_t t = 0; t < n; ++t, expert_ids += spec.n_chosen, weights += spec.n_chosen) {
        const float *of_token = logits + t * spec.n_experts;
        score(spec, of_token, scores);
        // NaN where logit or bias is infinite: 0 and 1 would hide it.
        for (int e = 0; e < spec.n_experts; ++e) scores[e] += of_token[e] - of_token[e];
        for (int e = 0; bias && e < spec.n_experts; ++e) scores[e] += bias[e] - bias[e];
        values = scores;
        for (int e = 0; bias && e < spec.n_experts; ++e) values[e] += bias[e];
        if (spec.n_groups_chosen < spec.n_groups) limit_to_groups(spec, values);
        top_k(values, spec.n_chosen, chosen);
        float total = 0;
        for (int i = 0; i < spec.n_chosen; ++i) total += scores[chosen[i]];
        const float factor = spec.normalize ? spec.scaling / (total + 1e-20f) : spec.scaling;
        for (int i = 0; i < spec.n_chosen; ++i) {
            expert_ids[i] = chosen[i];
            weights[i] = scores[chosen[i]] * factor;
        }
    }
}

}  // namespace sprat
