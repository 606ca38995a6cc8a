// Helpers for the bindings of runtime/native: NumPy arrays by type, Python records, KV entries.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <set>
#include <string>

#include "runtime/native/expect.hpp"
#include "runtime/native/kernels.hpp"

namespace nb = nanobind;

namespace sprat {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using OutInts = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;
using Strided = nb::ndarray<float, nb::ndim<3>, nb::device::cpu>;
using CacheArray = nb::ndarray<nb::ro, nb::device::cpu>;

// A Python record, read by attribute name. It keeps the arrays that it handed out, and so do the
// records inside it: an attribute may make a new array at each access.
class PythonRecord : public Record {
  public:
    explicit PythonRecord(nb::object object)
        : PythonRecord(std::move(object), std::make_shared<std::vector<nb::object>>()) {}

    // Throws for a field of the record that was not read: this core would compute without it.
    void expect_all_read() const;

    Matrix matrix(const char *name) const override;
    Vector vector(const char *name) const override;
    double number(const char *name) const override;
    bool flag(const char *name) const override;
    std::string text(const char *name) const override;
    RecordPtr record(const char *name) const override;

  private:
    using Arrays = std::shared_ptr<std::vector<nb::object>>;

    PythonRecord(nb::object object, Arrays arrays)
        : object_(std::move(object)), arrays_(std::move(arrays)) {}

    nb::object read(const char *name) const;

    nb::object object_;
    Arrays arrays_;
    mutable std::set<std::string> read_;  // names of fields
};

// A weight (runtime/weights.py) and the array that holds its bytes.
struct BoundWeight : Matrix {
    nb::object packed;

    explicit BoundWeight(const nb::object &weight);
};

// An MLP and the record that owns its weights.
struct BoundMlp : Mlp {
    RecordPtr owner;

    explicit BoundMlp(nb::object mlp);
};

int64_t bytes_of(const CacheArray &entries, size_t axis);  // stride of that axis

// Codes that share a scale, as runtime/cache has it: of a head, and of a latent of `rank` elements.
constexpr int kHeadGroup = 32;
constexpr int latent_group(int64_t rank) { return rank % 128 ? 32 : 128; }

// The last axis holds `n` elements in float32 or float16, or bytes: n_int8 of the elements as
// codes, the rest in float16.
KvEntries entries_of(const CacheArray &entries, int64_t n, int64_t n_int8, int group);

// Throws for a route to an expert that does not exist.
void expect_experts(const Ints &expert_ids, int64_t n_experts);

// Runs a kernel without the GIL, alone on its pool.
template <class Body> void run(KernelSet &set, const Body &body) {
    set.start_anew_after_fork();  // with the GIL, and so one thread at a time
    const nb::gil_scoped_release release;
    const std::lock_guard lock(*set.busy);
    body();
}

}  // namespace sprat

// The classes of runtime/kernels/layers.py, bound to their weights (bind/layers.cpp).
void bind_layers(nb::module_ &m, nb::class_<sprat::KernelSet> &kernels);
