// What the bindings of runtime/native share: arrays by their types, packed weights, rows of a cache.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>
#include <string>

#include "runtime/native/kernels.hpp"

namespace nb = nanobind;

namespace sprat {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using OutInts = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;
using Strided = nb::ndarray<float, nb::ndim<3>, nb::device::cpu>;
using CacheRows = nb::ndarray<nb::ro, nb::device::cpu>;

inline void expect(bool condition, const char *what) {
    if (!condition) throw std::invalid_argument(what);
}

// Keeps the array, and with it the memory map, alive.
struct PackedMatrix : Matrix {
    Bytes packed;

    PackedMatrix(Bytes bytes, const std::string &format, int64_t slices, int64_t rows, int64_t cols);
};

// gate, up and down, if their shapes fit together.
Mlp mlp_of(const PackedMatrix &gate, const PackedMatrix &up, const PackedMatrix &down);

int64_t bytes_of(const CacheRows &rows, size_t axis);

// Codes that share a scale, as runtime/cache has it: of a head, and of a latent of `rank` numbers.
constexpr int HEAD_GROUP = 32;
constexpr int latent_group(int64_t rank) { return rank % 128 ? 32 : 128; }

// The last axis holds `n` numbers in float32 or float16, or bytes: n_int8 of the numbers as codes, the rest in float16.
Rows rows_of(const CacheRows &rows, int64_t n, int64_t n_int8, int group);

// Runs a kernel without the GIL, alone on its pool.
template <class Body> void run(KernelSet &set, const Body &body) {
    const nb::gil_scoped_release release;
    const std::lock_guard lock(set.busy);
    body();
}

}  // namespace sprat

// The classes of runtime/kernels/layers.py, bound to their weights (bind_layers.cpp).
void bind_layers(nb::module_ &m, nb::class_<sprat::KernelSet> &kernels);
