// Attention over entries of any bytes, on every instruction set, and what writes them: nothing
// outside of the buffers, and a bad element shows in the result.
#include <algorithm>

#include "fuzz/native/input.hpp"
#include "runtime/native/isa/isa.hpp"

using namespace sprat;
using namespace sprat::fuzzing;

namespace {

constexpr int kTail = 6;  // elements of a latent that stay in float16

struct Form {
    bool is_float32;
    int n_int8, group;
};

int64_t stride_of(const Form &form, int dim) {
    if (form.is_float32) return 4 * dim;
    const KvEntries entries{nullptr, 0, false, form.n_int8, form.group};
    return form.n_int8 ? entries.f16_tail_at() + 2 * (dim - form.n_int8) : 2 * dim;
}

std::vector<float> attend(const Isa &isa, const std::vector<float> &q, const KvEntries &keys,
                          const KvEntries &values, int n, int dim, int value_dim, int n_entries) {
    const int stride = int(pad_to(value_dim, 16));
    std::vector<float> out(size_t(n) * stride), m(n), l(n);
    AttentionTask task{};
    task.q = q.data(), task.n_queries = n, task.dim = dim, task.value_dim = value_dim;
    task.queries_per_token = 1, task.first_seen = std::max(1, n_entries - n + 1);
    task.end = n_entries, task.keys = keys, task.values = values;
    task.out = out.data(), task.m = m.data(), task.l = l.data(), task.value_stride = stride;
    std::vector<uint8_t> scratch(isa.attention_scratch_bytes(task) + 64);
    task.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
    isa.attend(task);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < stride; ++j) out[size_t(i) * stride + j] /= l[i];
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    const int n_int8 = 32 * (1 + input.below(8));
    const Form forms[] = {{true, 0, 32}, {false, 0, 32}, {false, n_int8, 32}, {false, n_int8, 128}};
    const Form &form = forms[input.below(4)];
    const int n = 1 + input.below(9), n_entries = n + input.below(40);
    const int dim = n_int8 + (form.n_int8 ? kTail : input.below(7));
    const bool stores = input.byte() % 2;
    const auto q = input.small_floats(size_t(n) * dim);
    const int64_t stride = stride_of(form, dim);
    std::vector<uint8_t> bytes(size_t(n_entries * stride));
    const KvEntries entries{bytes.data(), stride, form.is_float32, form.n_int8, form.group};
    bool has_bad = false;
    if (stores) {
        for (int r = 0; r < n_entries; ++r) {
            auto x = input.small_floats(size_t(dim));
            if (input.below(16) == 15) x[size_t(input.byte()) % x.size()] = NAN, has_bad |= r == 0;
            store_entry(entries, r, x.data(), dim);
        }
    } else {
        const auto any = input.bytes(bytes.size());
        std::copy(any.begin(), any.end(), bytes.begin());
    }
    int n_isas = 0;
    const Isa *const *isas = usable_isas(n_isas);
    for (int i = 0; i < n_isas; ++i) {
        const auto out = attend(*isas[i], q, entries, entries, n, dim, n_int8, n_entries);
        // The first entry is seen by all queries.
        if (has_bad && std::none_of(out.begin(), out.end(), is_bad))
            found("a bad entry is lost", isas[i]->name, "attention");
    }
    return 0;
}
