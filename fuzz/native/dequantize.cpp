// Blocks of any bytes, unpacked by the codecs (every vector length, one result) and by the kernels
// (every instruction set, as the codecs but for rounding).
#include <algorithm>

#include "fuzz/native/input.hpp"
#include "quant/native/convert.hpp"
#include "runtime/native/isa/isa.hpp"

using namespace sprat;
using namespace sprat::fuzzing;

namespace {

std::vector<float> by_codec(Format format, const std::vector<uint8_t> &packed, size_t n,
                            int lanes) {
    std::vector<float> out(n);
    convert(format, F32, packed, {reinterpret_cast<uint8_t *>(out.data()), 4 * n}, lanes);
    return out;
}

void compare(const std::vector<float> &expected, const std::vector<float> &out, const char *isa,
             Format format) {
    float largest = 0;
    for (float x : expected) largest = std::isfinite(x) ? std::max(largest, std::fabs(x)) : largest;
    for (size_t i = 0; i < out.size(); ++i) {
        if (is_bad(expected[i]) != is_bad(out[i]))
            found("NaN or infinity differs", isa, kLayouts[format].name);
        // A product and a sum, or both in one step: what rounding leaves of values that cancel.
        if (!is_bad(out[i]) && std::fabs(out[i] - expected[i]) > 1e-4f * largest)
            found("a value differs", isa, kLayouts[format].name);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    const Format format = Format(input.below(N_FORMATS));
    const BlockLayout &layout = kLayouts[format];
    const int64_t multiple = std::max<int64_t>(32, int64_t(layout.block_size));
    const int64_t n = multiple * (1 + input.below(4));
    const auto packed = input.bytes(size_t(n) / layout.block_size * layout.block_bytes);
    const auto expected = by_codec(format, packed, size_t(n), 4);
    for (int lanes : {8, 16}) {
        const auto out = by_codec(format, packed, size_t(n), lanes);
        for (size_t i = 0; i < out.size(); ++i)
            if (!(is_bad(out[i]) && is_bad(expected[i])) && std::memcmp(&out[i], &expected[i], 4))
                found("a codec's vector lengths differ", "codec", layout.name);
    }
    const auto bad = first_nonfinite(format, packed);
    const auto first = std::find_if(expected.begin(), expected.end(), is_bad);
    if (bad.value_or(size_t(n)) != size_t(first - expected.begin()))
        found("first_nonfinite is wrong", "codec", layout.name);
    int n_isas = 0;
    const Isa *const *isas = usable_isas(n_isas);
    for (int i = 0; i < n_isas; ++i) {
        std::vector<float> out(size_t(n), 0.0f);
        isas[i]->dequantize[format](packed.data(), n, out.data());
        compare(expected, out, isas[i]->name, format);
    }
    return 0;
}
