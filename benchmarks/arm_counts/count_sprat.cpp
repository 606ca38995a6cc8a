// One piece of work, a number of times, on one thread and without Python: what benchmarks/arm.py
// counts the instructions of.
//
//   count_sprat ISA REPEATS product FORMAT ROWS COLS TOKENS
//   count_sprat ISA REPEATS experts FORMAT WIDTH HIDDEN EXPERTS TOKENS    each token chooses one
//   count_sprat ISA REPEATS grouped HEADS KV_HEADS DIM DEPTH TOKENS      float16 KV entries
//   count_sprat ISA REPEATS latent HEADS RANK ROPE DEPTH TOKENS          int8 latents, absorbed
//
// ISA "" is the best one of the processor. Its name is printed, and the least CPU time of a
// repetition in seconds. Every byte of the weights is the same, which makes small and finite scales
// in every format; no kernel looks at values to decide what to do.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "benchmarks/arm_counts/cpu_time.hpp"
#include "runtime/native/kernels.hpp"

using namespace sprat;

namespace {

struct Arguments {
    char **at;

    std::string text() { return *at++; }
    int64_t number() { return std::atoll(*at++); }
};

Format format_named(const std::string &name) {
    for (int f = 0; f < N_FORMATS; ++f)
        if (name == kLayouts[f].name) return Format(f);
    std::fprintf(stderr, "no block format is called %s\n", name.c_str());
    std::exit(2);
}

struct Weights {
    std::vector<uint8_t> bytes;
    Matrix matrix;

    Weights(Format format, int64_t slices, int64_t rows, int64_t cols) {
        const BlockLayout &layout = kLayouts[format];
        const size_t row_bytes = size_t(cols) / layout.block_size * layout.block_bytes;
        bytes.assign(size_t(slices * rows) * row_bytes, 0x28);
        matrix = {bytes.data(), format, slices, rows, cols, row_bytes};
    }
};

std::vector<float> ramp(int64_t n) {
    std::vector<float> out(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) out[size_t(i)] = float(i % 17 - 8) / 16;
    return out;
}

void product(KernelSet &set, Arguments arguments, int64_t repeats) {
    const Format format = format_named(arguments.text());
    const int64_t rows = arguments.number(), cols = arguments.number(), n = arguments.number();
    const Weights weights(format, 1, rows, cols);
    const auto x = ramp(n * cols);
    std::vector<float> out(size_t(n * rows));
    repeat(repeats, [&] { set.linear.linear(weights.matrix, x.data(), n, nullptr, out.data()); });
}

void experts(KernelSet &set, Arguments arguments, int64_t repeats) {
    const Format format = format_named(arguments.text());
    const int64_t width = arguments.number(), hidden = arguments.number();
    const int64_t n_experts = arguments.number(), n = arguments.number();
    const Weights gate(format, n_experts, width, hidden), down(format, n_experts, hidden, width);
    const Mlp routed{gate.matrix, gate.matrix, down.matrix};
    const auto x = ramp(n * hidden);
    std::vector<float> out(size_t(n * hidden)), weights(size_t(n), 0.5f);
    std::vector<int32_t> chosen(static_cast<size_t>(n));
    for (int64_t t = 0; t < n; ++t) chosen[size_t(t)] = int32_t(t % n_experts);
    repeat(repeats, [&] {
        set.moe.experts(routed, nullptr, x.data(), n, chosen.data(), weights.data(), 1, out.data());
    });
}

void grouped(KernelSet &set, Arguments arguments, int64_t repeats) {
    const int64_t heads = arguments.number(), kv_heads = arguments.number();
    const int64_t dim = arguments.number(), depth = arguments.number(), n = arguments.number();
    const int64_t head_bytes = depth * dim * 2;
    const std::vector<uint8_t> halves(size_t(2 * kv_heads * head_bytes), 0x28);
    const KvEntries keys{halves.data(), dim * 2, false, 0};
    const KvEntries values{halves.data() + kv_heads * head_bytes, dim * 2, false, 0};
    const GroupedKv cache{keys, values, head_bytes, head_bytes, int(kv_heads), depth};
    const auto q = ramp(n * heads * dim);
    std::vector<float> out(q.size());
    repeat(repeats, [&] {
        set.attention.gqa(q.data(), n, int(heads), int(dim), cache, 0.1f, out.data());
    });
}

void latent(KernelSet &set, Arguments arguments, int64_t repeats) {
    const int64_t heads = arguments.number(), rank = arguments.number();
    const int64_t rope = arguments.number(), depth = arguments.number(), n = arguments.number();
    const int64_t nope = 128, value = 128;
    const Weights k_b(Q8_0, heads, rank, nope), v_b(Q8_0, heads, value, rank);
    KvEntries entries{nullptr, 0, false, int(rank), 128};
    entries.stride = entries.f16_tail_at() + 2 * rope;
    std::vector<uint8_t> latents(size_t(depth * entries.stride));
    entries.data = latents.data();
    const auto x = ramp(rank + rope), q = ramp(n * heads * (nope + rope));
    for (int64_t i = 0; i < depth; ++i) store_entry(entries, i, x.data(), rank + rope);
    std::vector<float> out(size_t(n * heads * value));
    const LatentKv cache{entries, depth, &k_b.matrix, &v_b.matrix};
    repeat(repeats, [&] {
        set.attention.mla_absorbed(q.data(), n, int(nope + rope), cache, 0.1f, out.data());
    });
}

}  // namespace

int main(int argc, char **argv) {
    const Isa *isa = argc > 3 ? find_isa(argv[1]) : nullptr;
    if (!isa) return std::fprintf(stderr, "count_sprat ISA REPEATS WORK ...\n"), 2;
    std::puts(isa->name);
    KernelSet set(*isa, 1, {});
    const std::string work = argv[3];
    const Arguments arguments{argv + 4};
    const int64_t repeats = std::atoll(argv[2]);
    if (work == "product") product(set, arguments, repeats);
    else if (work == "experts") experts(set, arguments, repeats);
    else if (work == "grouped") grouped(set, arguments, repeats);
    else if (work == "latent") latent(set, arguments, repeats);
    else return std::fprintf(stderr, "no work is called %s\n", work.c_str()), 2;
}
