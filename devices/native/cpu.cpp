// What this processor can do: instruction sets that sprat has kernels for, cache sizes, page size.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include <map>
#include <string>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <cstdint>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace nb = nanobind;

namespace {

using Features = std::map<std::string, bool>;

#if defined(__x86_64__)
struct Registers { uint32_t eax, ebx, ecx, edx; };

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r{};
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

// XCR0: which register files the operating system saves. A feature whose registers are not saved must not be used.
uint64_t saved_state() {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t(high) << 32) | low;
}

bool bit(uint32_t word, int index) { return (word >> index) & 1; }

Features features() {
    const Registers basic = cpuid(1, 0), seven = cpuid(7, 0), seven1 = cpuid(7, 1);
    const uint64_t state = bit(basic.ecx, 27) ? saved_state() : 0;
    const bool ymm = (state & 0x6) == 0x6, zmm = ymm && (state & 0xe0) == 0xe0, tiles = (state & 0x60000) == 0x60000;
    const bool avx512 = zmm && bit(seven.ebx, 16) && bit(seven.ebx, 30) && bit(seven.ebx, 31);  // F, BW, VL
    return {
        {"avx2", ymm && bit(seven.ebx, 5)},
        {"fma", ymm && bit(basic.ecx, 12)},
        {"f16c", ymm && bit(basic.ecx, 29)},
        {"bmi2", bit(seven.ebx, 8)},
        {"avx_vnni", ymm && bit(seven1.eax, 4)},
        {"avx512", avx512},
        {"avx512_vbmi", avx512 && bit(seven.ecx, 1)},
        {"avx512_vnni", avx512 && bit(seven.ecx, 11)},
        {"avx512_bf16", avx512 && bit(seven1.eax, 5)},
        {"amx_int8", tiles && bit(seven.edx, 25)},
        {"amx_bf16", tiles && bit(seven.edx, 22)},
    };
}
#elif defined(__aarch64__)
Features features() {
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    return {
        {"neon", (first & HWCAP_ASIMD) != 0},
        {"fp16", (first & HWCAP_ASIMDHP) != 0},
        {"dotprod", (first & HWCAP_ASIMDDP) != 0},
        {"sve", (first & HWCAP_SVE) != 0},
        {"i8mm", (second & HWCAP2_I8MM) != 0},
        {"bf16", (second & HWCAP2_BF16) != 0},
    };
}
#else
Features features() { return {}; }
#endif

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
    m.def("cpu_features", &features, "Instruction set name -> whether processor and operating system support it.");
    m.def("cache_bytes", &cache_bytes, "Cache level -> bytes, 0 where unknown.");
    m.def("page_bytes", [] { return sysconf(_SC_PAGESIZE); }, "Bytes of one memory page.");
}
