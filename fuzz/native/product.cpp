// Products of any blocks with any activations, on every instruction set: nothing outside of the
// buffers is read or written, a bad weight or activation shows in every result that it takes part
// in, and finite results agree.
#include <algorithm>

#include "fuzz/native/input.hpp"
#include "runtime/native/isa/isa.hpp"

using namespace sprat;
using namespace sprat::fuzzing;

namespace {

struct Case {
    Format format;
    int n_rows, n_tokens;
    int64_t k;
    std::vector<uint8_t> weights;
    std::vector<float> x;
};

std::vector<float> product(const Isa &isa, const Isa &quantizer, const Case &of) {
    const int64_t padded = pad_to(of.k, 256);
    std::vector<uint8_t> records(size_t(of.n_tokens * padded * 3 / 2)),
        scratch(gemm_scratch_bytes(of.n_tokens) + 64);
    std::vector<float> out(size_t(of.n_tokens) * of.n_rows);
    const Activations input{of.x.data(), of.k, {records.data(), padded}};
    for (int t = 0; t < of.n_tokens; ++t)
        quantizer.quantize(of.x.data() + t * of.k, of.k, input.quantized, t);
    GemmTask task{};
    task.weights = task.next = of.weights.data(), task.row_bytes = of.weights.size() / of.n_rows;
    task.n_rows = of.n_rows, task.input = &input, task.n_tokens = of.n_tokens;
    task.out = out.data(), task.out_stride = of.n_rows;
    task.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
    isa.gemm[of.format](task);
    return out;
}

// Which bytes of a block hold the codes; the others hold scales and minima.
struct CodeBytes {
    size_t begin, end;
};

CodeBytes code_bytes(Format format) {
    switch (format) {
        case F32:
        case F16:
        case BF16:
            return {0, 0};
        case Q4_1:
        case Q5_1:
        case NVFP4:
            return {4, kLayouts[format].block_bytes};
        case Q4_K:
        case Q5_K:
            return {16, kLayouts[format].block_bytes};
        case Q6_K:
            return {0, 192};
        case IQ4_XS:
            return {8, 136};
        case Q3_K:
            return {0, 96};
        case Q2_K:
            return {16, 80};
        case MXFP4:
            return {1, 17};
        default:
            return {2, kLayouts[format].block_bytes};
    }
}

// The largest magnitude; infinite for a bad value.
double largest_of(const float *values, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; ++i)
        largest = std::max<double>(largest, is_bad(values[i]) ? INFINITY : std::fabs(values[i]));
    return largest;
}

// Of a row: the largest magnitude of its values, and of what its scales make of any codes. A kernel
// adds codes without their zero point, or without the minimum, and takes that off later: it rounds
// by the second.
struct RowSize {
    double largest, of_any_codes;

    RowSize(const Isa &isa, Format format, const uint8_t *weights, size_t n_bytes, int64_t k) {
        std::vector<float> values(size_t(k), 0.0f);
        isa.dequantize[format](weights, k, values.data());
        largest = of_any_codes = largest_of(values.data(), k);
        const CodeBytes codes = code_bytes(format);
        for (const int fill : {0x00, 0x80, 0xff}) {
            std::vector<uint8_t> filled(weights, weights + n_bytes);
            for (size_t at = 0; at < n_bytes; at += kLayouts[format].block_bytes)
                std::memset(&filled[at + codes.begin], fill, codes.end - codes.begin);
            isa.dequantize[format](filled.data(), k, values.data());
            of_any_codes = std::max(of_any_codes, largest_of(values.data(), k));
        }
    }
};

void check(const Case &of, const Isa &isa, const Isa &plain, const std::vector<RowSize> &rows,
           const std::vector<double> &tokens) {
    const auto out = product(isa, plain, of), expected = product(plain, plain, of);
    const bool any_bad = std::any_of(rows.begin(), rows.end(),
                                     [](const RowSize &row) { return !std::isfinite(row.largest); });
    for (int t = 0; t < of.n_tokens; ++t)
        for (int r = 0; r < of.n_rows; ++r) {
            const float here = out[size_t(t) * of.n_rows + r],
                        there = expected[size_t(t) * of.n_rows + r];
            const double largest = rows[r].largest * tokens[t];
            if (std::isnan(largest) || std::isinf(largest)) {
                if (!is_bad(here))
                    found("a bad value is lost", isa.name, kLayouts[of.format].name);
                continue;
            }
            // A bad row may spoil its neighbours in a panel: more shows than must.
            if (any_bad && is_bad(here)) continue;
            // Sums in another order. Above 1e30 a step may overflow, which shows.
            const double limit = 1e-4 * double(of.k) * rows[r].of_any_codes * tokens[t] + 1e-30;
            if (rows[r].largest < 1e30 && limit < 1e26 && !(std::fabs(here - there) <= limit))
                found("a result differs", isa.name, kLayouts[of.format].name);
        }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    Case of{Format(input.below(N_FORMATS)), 1 + input.below(4), 1 + input.below(7), 0, {}, {}};
    const BlockLayout &layout = kLayouts[of.format];
    const int bad_activation = input.byte();
    of.k = std::max<int64_t>(32, int64_t(layout.block_size)) * (1 + input.below(3));
    of.weights = input.bytes(size_t(of.n_rows * of.k) / layout.block_size * layout.block_bytes);
    of.x = bad_activation % 8 == 7 ? input.any_floats(size_t(of.n_tokens * of.k))
                                   : input.small_floats(size_t(of.n_tokens * of.k));
    int n_isas = 0;
    const Isa *const *isas = usable_isas(n_isas);
    const Isa &plain = *isas[n_isas - 1];
    std::vector<RowSize> rows;
    const size_t row_bytes = of.weights.size() / of.n_rows;
    for (int r = 0; r < of.n_rows; ++r)
        rows.emplace_back(plain, of.format, of.weights.data() + r * row_bytes, row_bytes, of.k);
    std::vector<double> tokens;
    for (int t = 0; t < of.n_tokens; ++t)
        tokens.push_back(largest_of(of.x.data() + t * of.k, of.k));
    for (int i = 0; i < n_isas; ++i) check(of, *isas[i], plain, rows, tokens);
    return 0;
}
