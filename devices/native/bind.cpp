// Properties of this CPU, for Python: instruction sets, cache sizes, page size.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>

#include "devices/native/cpu_features.hpp"

namespace nb = nanobind;

namespace {

std::map<std::string, bool> features() {
    [[maybe_unused]] const sprat::CpuFeatures &has = sprat::cpu_features();
#define SPRAT_NAMED_FEATURE(name) {#name, has.name},
    return {SPRAT_CPU_FEATURES(SPRAT_NAMED_FEATURE)};
#undef SPRAT_NAMED_FEATURE
}

// Bytes per level as the C library reports them; 0 where it does not know (common on ARM boards).
std::map<std::string, long> cache_bytes() {
    const auto known = [](int name) { return std::max(0L, sysconf(name)); };
    return {
        {"l1d", known(_SC_LEVEL1_DCACHE_SIZE)},
        {"l2", known(_SC_LEVEL2_CACHE_SIZE)},
        {"l3", known(_SC_LEVEL3_CACHE_SIZE)},
    };
}

}  // namespace

void bind_cpu(nb::module_ &m) {
    m.def("cpu_features", &features,
          "Instruction set name -> whether processor and operating system support it.");
    m.def("cache_bytes", &cache_bytes, "Cache level -> bytes, 0 where unknown.");
    m.def("page_bytes", [] { return sysconf(_SC_PAGESIZE); }, "Bytes of one memory page.");
}
