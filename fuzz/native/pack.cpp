// Functions that take floats of an untrusted model: quantizers of weights (every vector length, one
// result) and of activations, norms, and routing.
#include <algorithm>
#include <set>

#include "fuzz/native/input.hpp"
#include "quant/native/convert.hpp"
#include "runtime/native/isa/isa.hpp"
#include "runtime/native/route.hpp"

using namespace sprat;
using namespace sprat::fuzzing;

namespace {

void pack(Input &input) {
    const Format format = Format(input.below(N_FORMATS));
    const BlockLayout &layout = kLayouts[format];
    const size_t n = std::max<size_t>(32, layout.block_size) * size_t(1 + input.below(2));
    auto weights = input.byte() % 2 ? input.any_floats(n) : input.small_floats(n);
    for (float &x : weights)  // what an export refuses before it quantizes
        if (!(std::fabs(x) <= 65504)) x = 0;
    const std::span<const uint8_t> source(reinterpret_cast<const uint8_t *>(weights.data()), 4 * n);
    std::vector<uint8_t> first(n / layout.block_size * layout.block_bytes), other(first);
    convert(F32, format, source, first, 4);
    for (int lanes : {8, 16}) {
        convert(F32, format, source, other, lanes);
        if (first != other) found("a quantizer's vector lengths differ", "codec", layout.name);
    }
}

void activations(Input &input) {
    const int64_t k = 32 * (1 + input.below(16)), padded = pad_to(k, 256);
    const auto x = input.any_floats(size_t(k)), gain = input.any_floats(size_t(k));
    int n_isas = 0;
    const Isa *const *isas = usable_isas(n_isas);
    for (int i = 0; i < n_isas; ++i) {
        std::vector<uint8_t> records(size_t(padded * 3 / 2));
        std::vector<float> out(size_t(k), 0.0f);
        isas[i]->quantize(x.data(), k, {records.data(), padded}, 0);
        isas[i]->rms_norm(x.data(), gain.data(), 1e-6f, k, out.data());
        isas[i]->silu_mul(x.data(), gain.data(), k, out.data());
    }
}

void experts(Input &input) {
    const int n_groups = 1 + input.below(4), n_experts = n_groups * (1 + input.below(8));
    const int n_groups_chosen = 1 + input.below(n_groups);
    const int n_chosen = 1 + input.below(n_groups_chosen * (n_experts / n_groups));
    const bool sigmoid = input.byte() % 2, normalizes = input.byte() % 2, top2 = input.byte() % 2;
    const MoeSpec spec{n_experts, n_chosen,   n_groups, n_groups_chosen,
                       sigmoid,   normalizes, top2,     2.5f};
    const int64_t n = 1 + input.below(4);
    const auto logits = input.any_floats(size_t(n * n_experts)),
               bias = input.any_floats(size_t(n_experts));
    std::vector<int32_t> ids(size_t(n * n_chosen));
    std::vector<float> weights(ids.size());
    route(spec, logits.data(), input.byte() % 2 ? bias.data() : nullptr, n, ids.data(),
          weights.data());
    for (int64_t t = 0; t < n; ++t) {
        const int32_t *first = &ids[size_t(t * n_chosen)];
        const std::set<int32_t> chosen(first, first + n_chosen);
        if (int(chosen.size()) != n_chosen || *chosen.begin() < 0 || *chosen.rbegin() >= n_experts)
            found("an expert that does not exist, or twice the same", "plain", "route");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    switch (input.below(3)) {
        case 0:
            pack(input);
            break;
        case 1:
            activations(input);
            break;
        default:
            experts(input);
    }
    return 0;
}
