// sprat._core.convert, first_nonfinite and block_types.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <vector>

#include "quant/native/convert.hpp"

namespace nb = nanobind;

namespace sprat {
namespace {

using Source = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Target = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void convert_arrays(int source_type, int target_type, Source source, Target target, int max_lanes) {
    const Format from = format_of_type(source_type), to = format_of_type(target_type);
    const nb::gil_scoped_release released;
    convert(from, to, {source.data(), source.size()}, {target.data(), target.size()}, max_lanes);
}

using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Indices = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void quantize_rows(int target_type, Rows weights, Rows importance, Indices which, Target target,
                   int max_lanes) {
    const Format to = format_of_type(target_type);
    if (importance.shape(1) != weights.shape(1) || which.shape(0) != weights.shape(0))
        throw std::invalid_argument("importance has not the shape of the weights");
    const WeightedRows rows{{weights.data(), weights.size()},
                            {importance.data(), importance.size()},
                            {which.data(), which.size()},
                            weights.shape(1)};
    const nb::gil_scoped_release released;
    quantize_weighted(to, rows, {target.data(), target.size()}, max_lanes);
}

std::optional<size_t> first_nonfinite_of(int source_type, Source source) {
    const Format format = format_of_type(source_type);
    const nb::gil_scoped_release released;
    return first_nonfinite(format, {source.data(), source.size()});
}

std::vector<int> block_types() {
    std::vector<int> types;
    for (const BlockLayout &layout : kLayouts) types.push_back(layout.ggml_type);
    return types;
}

}  // namespace
}  // namespace sprat

void bind_quant(nb::module_ &m) {
    m.def("block_types", &sprat::block_types, "ggml type numbers that convert knows.");
    m.def("convert", &sprat::convert_arrays, nb::arg("source_type"), nb::arg("target_type"),
          nb::arg("source"), nb::arg("target"), nb::arg("max_lanes") = 16,
          "Repack the blocks of source as blocks of target, with vectors of at most max_lanes "
          "floats.");
    m.def("quantize_weighted", &sprat::quantize_rows, nb::arg("target_type"), nb::arg("weights"),
          nb::arg("importance"), nb::arg("which"), nb::arg("target"), nb::arg("max_lanes") = 16,
          "Quantize rows, whose squared errors have the importance importance[which].");
    m.def("first_nonfinite", &sprat::first_nonfinite_of, nb::arg("source_type"), nb::arg("source"),
          "Index of the first weight that is NaN or infinite.");
}
