#include "quant/native/convert.hpp"

#include <stdexcept>
#include <string>

#include "devices/native/cpu_features.hpp"
#include "quant/native/half.hpp"
#include "quant/native/parallel.hpp"

namespace sprat {
namespace {

// Weights between unpack and pack: 8 KiB of float32, a quarter of the smallest first-level cache in
// use (32 KiB), so that what unpack wrote is still there when pack reads it, with room for both
// formats' packed blocks. A multiple of every block size.
constexpr size_t kBuffer = 2048;
// Weights that a thread takes at a time: enough that taking a share, one atomic addition, costs
// nothing.
constexpr size_t kShare = 64 * kBuffer;

#define SPRAT_CODEC_OF(name, ...) codec_##name(),
const Codec &codec_of(Format format) {
    static const Codec all[N_FORMATS] = {SPRAT_FORMATS(SPRAT_CODEC_OF)};
    return all[format];
}
#undef SPRAT_CODEC_OF

size_t weights_in(const BlockLayout &layout, size_t n_bytes) {
    if (n_bytes % layout.block_bytes)
        throw std::invalid_argument(
            std::to_string(n_bytes) + " bytes are not a whole number of blocks of " +
            std::to_string(layout.block_bytes) + " bytes (" + layout.name + ")");
    return n_bytes / layout.block_bytes * layout.block_size;
}

// Index of the functions for the longest vectors that this processor has, of at most so many lanes.
// The features are those that SPRAT_AVX2 and SPRAT_AVX512 (codec.hpp) compile for.
int variant(int max_lanes) {
    int widest = 0;
#if defined(__x86_64__)
    const CpuFeatures &cpu = cpu_features();
    if (cpu.avx2 && cpu.bmi2) widest = cpu.avx512 ? 2 : 1;
#endif
    return std::min(widest, max_lanes >= 16 ? 2 : max_lanes >= 8 ? 1 : 0);
}

// Calls work(first weight, number of weights) for pieces of at most kBuffer weights.
template <class Work> void for_pieces(size_t n_weights, const Work &work) {
    parallel_for((n_weights + kShare - 1) / kShare, [&](size_t share) {
        const size_t end = std::min(n_weights, (share + 1) * kShare);
        for (size_t start = share * kShare; start < end; start += kBuffer)
            work(start, std::min(kBuffer, end - start));
    });
}

// normalized() of quant/formats/shared/importance.py: each block divided by its largest element,
// and none of it below 2^-16.
void normalize(const float *importance, size_t n, size_t block_size, float *to) {
    for (size_t start = 0; start < n; start += block_size) {
        const float *block = importance + start;
        const float largest = *std::max_element(block, block + block_size);
        for (size_t i = 0; i < block_size; ++i) {
            const float ratio = largest > 0 ? block[i] / largest : 1.f;
            to[start + i] = ratio > 0x1p-16f ? ratio : 0x1p-16f;
        }
    }
}

bool is_finite(float value) { return (bits_of(value) & 0x7f800000) != 0x7f800000; }

}  // namespace

Format format_of_type(int ggml_type) {
    for (int f = 0; f < N_FORMATS; ++f)
        if (kLayouts[f].ggml_type == ggml_type) return Format(f);
    throw std::invalid_argument("ggml type " + std::to_string(ggml_type) +
                                " is not known to the native core");
}

void convert(Format from, Format to, std::span<const uint8_t> source, std::span<uint8_t> target,
             int max_lanes) {
    const BlockLayout &in = kLayouts[from], &out = kLayouts[to];
    const Unpack unpack = codec_of(from).unpack[variant(max_lanes)];
    const Pack pack = codec_of(to).pack[variant(max_lanes)];
    const size_t n_weights = weights_in(in, source.size());
    if (n_weights % out.block_size || n_weights != weights_in(out, target.size()))
        throw std::invalid_argument("source and target do not hold the same number of weights");
    for_pieces(n_weights, [&](size_t start, size_t n) {
        alignas(64) float weights[kBuffer];
        unpack(source.data() + start / in.block_size * in.block_bytes, weights, n / in.block_size);
        pack(weights, target.data() + start / out.block_size * out.block_bytes, n / out.block_size);
    });
}

void quantize_weighted(Format to, const WeightedRows &rows, std::span<uint8_t> target,
                       int max_lanes) {
    const BlockLayout &out = kLayouts[to];
    const PackWeighted pack = codec_of(to).pack_weighted[variant(max_lanes)];
    const size_t n_rows = rows.which.size(), k = rows.k, n_blocks = k / out.block_size;
    const size_t n_distinct = k ? rows.importance.size() / k : 0;
    if (k % out.block_size || rows.weights.size() != n_rows * k ||
        target.size() != n_rows * n_blocks * out.block_bytes)
        throw std::invalid_argument("rows and target do not hold the same number of weights");
    for (const int64_t index : rows.which)
        if (k && (index < 0 || size_t(index) >= n_distinct))
            throw std::invalid_argument("a row has no importance");
    parallel_for(n_rows, [&](size_t row) {
        alignas(64) float importance[kBuffer];
        for (size_t start = 0; start < k; start += kBuffer) {
            const size_t n = std::min(kBuffer, k - start);
            normalize(rows.importance.data() + size_t(rows.which[row]) * k + start, n,
                      out.block_size, importance);
            pack(rows.weights.data() + row * k + start, importance,
                 target.data() + (row * n_blocks + start / out.block_size) * out.block_bytes,
                 n / out.block_size);
        }
    });
}

std::optional<size_t> first_nonfinite(Format format, std::span<const uint8_t> source) {
    const BlockLayout &in = kLayouts[format];
    const Unpack unpack = codec_of(format).unpack[variant(16)];
    const size_t n_weights = weights_in(in, source.size());
    std::atomic<size_t> first{n_weights};
    for_pieces(n_weights, [&](size_t start, size_t n) {
        if (start > first.load(std::memory_order_relaxed)) return;
        alignas(64) float weights[kBuffer];
        unpack(source.data() + start / in.block_size * in.block_bytes, weights, n / in.block_size);
        // First over all weights, so that the loop vectorises; the index only if there is one.
        uint32_t found = 0;
        for (size_t i = 0; i < n; ++i) found |= !is_finite(weights[i]);
        if (!found) return;
        const size_t mine =
            start + size_t(std::find_if_not(weights, weights + n, is_finite) - weights);
        for (size_t seen = first; mine < seen && !first.compare_exchange_weak(seen, mine);) {}
    });
    return first < n_weights ? std::optional<size_t>(first) : std::nullopt;
}

}  // namespace sprat
