// Guarded maps for Python (runtime/files/mapped_file.py).
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "runtime/native/bind/arrays.hpp"
#include "runtime/native/maps/guard.hpp"

using nb::literals::operator""_a;

void bind_maps(nb::module_ &m) {
    using namespace sprat;
    nb::class_<MapGuard>(m, "MapGuard", "Pages of a mapped file that are lost read as zeros.")
        .def(
            "__init__",
            [](MapGuard *at, const Bytes &mapped) {
                new (at) MapGuard(mapped.data(), mapped.size());
            },
            "mapped"_a)
        .def("__init__", [](MapGuard *at, const std::string &path) { new (at) MapGuard(path); },
             "path"_a)
        .def_prop_ro("failed", &MapGuard::has_failed);
    m.def("install_bus_handler", &install_bus_handler);
}
