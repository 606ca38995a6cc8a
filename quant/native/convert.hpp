// Any block format to any other, over all cores, without a copy of the tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "quant/native/formats.hpp"

namespace sprat {

// The format of that number; throws std::invalid_argument where the core has no codec for it.
Format format_of_type(int ggml_type);

// Repacks the blocks of `source` as blocks of `target`, with vectors of at most `max_lanes` floats.
void convert(Format from, Format to, std::span<const uint8_t> source, std::span<uint8_t> target,
             int max_lanes);

// Rows of k weights; row r's squared errors have the importance importance[which[r] * k ..], finite
// and not negative.
struct WeightedRows {
    std::span<const float> weights, importance;
    std::span<const int64_t> which;
    size_t k;
};

// Packs rows as blocks of `target`.
void quantize_weighted(Format to, const WeightedRows &rows, std::span<uint8_t> target,
                       int max_lanes);

// Index of the first weight that is NaN or infinite.
std::optional<size_t> first_nonfinite(Format format, std::span<const uint8_t> source);

}  // namespace sprat
