// The table of contents of sprat._core: one bind function per room.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_cpu(nb::module_ &m);      // devices/native/bind.cpp
void bind_quant(nb::module_ &m);    // quant/native/bind.cpp
void bind_kernels(nb::module_ &m);  // runtime/native/bind/bind.cpp
void bind_maps(nb::module_ &m);     // runtime/native/bind/maps.cpp

// The version of everything that the bind functions define: raised, here and in
// src/sprat/native.py, whenever Python code of one version would misuse a core of another.
constexpr int kAbi = 4;

NB_MODULE(_core, m) {
    m.doc() = "The native core of sprat; everything in it also exists in NumPy.";
    m.attr("abi") = kAbi;
    bind_cpu(m);
    bind_quant(m);
    bind_kernels(m);
    bind_maps(m);
}
