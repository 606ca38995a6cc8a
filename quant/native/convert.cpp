// sprat._core.convert and first_nonfinite: any block format to any other, over all cores, without a copy of the tensor.
#include "quant/native/half.h"
#include "quant/native/parallel.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>

namespace nb = nanobind;

namespace sprat {
namespace {

constexpr size_t BUFFER = 2048;           // weights between unpack and pack: 8 KiB, within the first cache
constexpr size_t SHARE = 64 * BUFFER;     // weights that a thread takes at a time

using Source = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Target = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

const std::vector<Codec> &codecs() {
    static const std::vector<Codec> all = {
        f32_codec(),  f16_codec(),  bf16_codec(),   q8_0_codec(), q4_0_codec(), q4_1_codec(),
        q5_0_codec(), q5_1_codec(), iq4_nl_codec(), q4_k_codec(), q5_k_codec(), q6_k_codec(),
    };
    return all;
}

const Codec &codec_of(int ggml_type) {
    for (const Codec &codec : codecs())
        if (codec.ggml_type == ggml_type) return codec;
    throw std::invalid_argument("ggml type " + std::to_string(ggml_type) + " is not known to the native core");
}

size_t weights_in(const Codec &codec, size_t n_bytes) {
    if (n_bytes % codec.block_bytes)
        throw std::invalid_argument(std::to_string(n_bytes) + " bytes are not a whole number of blocks of " +
                                    std::to_string(codec.block_bytes) + " bytes");
    return n_bytes / codec.block_bytes * codec.block_size;
}

// Index of the functions for the longest vectors that this processor has, of at most so many lanes.
int variant(int max_lanes) {
    int widest = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) widest = 1;
    if (widest && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        widest = 2;
#endif
    return std::min(widest, max_lanes >= 16 ? 2 : max_lanes >= 8 ? 1 : 0);
}

// Calls work(first weight, number of weights) for pieces of at most BUFFER weights.
template <class Work>
void for_pieces(size_t n_weights, const Work &work) {
    parallel_for((n_weights + SHARE - 1) / SHARE, [&](size_t share) {
        const size_t end = std::min(n_weights, (share + 1) * SHARE);
        for (size_t start = share * SHARE; start < end; start += BUFFER) work(start, std::min(BUFFER, end - start));
    });
}

void convert(int source_type, int target_type, Source source, Target target, int max_lanes) {
    const Codec &from = codec_of(source_type), &to = codec_of(target_type);
    const Unpack unpack = from.unpack[variant(max_lanes)];
    const Pack pack = to.pack[variant(max_lanes)];
    const size_t n_weights = weights_in(from, source.size());
    if (n_weights % to.block_size || n_weights != weights_in(to, target.size()))
        throw std::invalid_argument("source and target do not hold the same number of weights");
    const uint8_t *in = source.data();
    uint8_t *out = target.data();
    nb::gil_scoped_release released;
    for_pieces(n_weights, [&](size_t start, size_t n) {
        alignas(64) float weights[BUFFER];
        unpack(in + start / from.block_size * from.block_bytes, weights, n / from.block_size);
        pack(weights, out + start / to.block_size * to.block_bytes, n / to.block_size);
    });
}

bool is_finite(float value) { return (bits_of(value) & 0x7f800000) != 0x7f800000; }

std::optional<size_t> first_nonfinite(int source_type, Source source) {
    const Codec &from = codec_of(source_type);
    const Unpack unpack = from.unpack[variant(16)];
    const size_t n_weights = weights_in(from, source.size());
    const uint8_t *in = source.data();
    std::atomic<size_t> first{n_weights};
    {
        nb::gil_scoped_release released;
        for_pieces(n_weights, [&](size_t start, size_t n) {
            if (start > first.load(std::memory_order_relaxed)) return;
            alignas(64) float weights[BUFFER];
            unpack(in + start / from.block_size * from.block_bytes, weights, n / from.block_size);
            uint32_t found = 0;
            for (size_t i = 0; i < n; ++i) found |= !is_finite(weights[i]);
            if (!found) return;
            size_t mine = start + size_t(std::find_if_not(weights, weights + n, is_finite) - weights);
            for (size_t seen = first; mine < seen && !first.compare_exchange_weak(seen, mine);) {}
        });
    }
    return first < n_weights ? std::optional<size_t>(first) : std::nullopt;
}

std::vector<int> types() {
    std::vector<int> found;
    for (const Codec &codec : codecs()) found.push_back(codec.ggml_type);
    return found;
}

}  // namespace
}  // namespace sprat

void bind_quant(nb::module_ &m) {
    m.def("block_types", &sprat::types, "ggml type numbers that convert knows.");
    m.def("convert", &sprat::convert, nb::arg("source_type"), nb::arg("target_type"), nb::arg("source"),
          nb::arg("target"), nb::arg("max_lanes") = 16,
          "Repack the blocks of source as blocks of target, with vectors of at most max_lanes floats.");
    m.def("first_nonfinite", &sprat::first_nonfinite, nb::arg("source_type"), nb::arg("source"),
          "Index of the first weight that is NaN or infinite.");
}
