#include "devices/native/cpu_features.hpp"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace sprat {
namespace {

#if defined(__x86_64__)
struct Registers {
    uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r{};
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

// XCR0: which register files the operating system saves. A feature whose registers are not saved
// must not be used.
uint64_t saved_state() {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t(high) << 32) | low;
}

constexpr bool bit(uint32_t word, int index) { return (word >> index) & 1; }

// Bits as in Intel's manual, volume 2A, CPUID: leaf 1, leaf 7 and its subleaf 1.
CpuFeatures detect() {
    const Registers basic = cpuid(1, 0), seven = cpuid(7, 0), seven1 = cpuid(7, 1);
    const uint64_t state = bit(basic.ecx, 27) ? saved_state() : 0;  // OSXSAVE
    const bool ymm = (state & 0x6) == 0x6, zmm = ymm && (state & 0xe0) == 0xe0;
    const bool tiles = (state & 0x60000) == 0x60000;
    CpuFeatures has;
    has.avx2 = ymm && bit(seven.ebx, 5);
    has.fma = ymm && bit(basic.ecx, 12);
    has.f16c = ymm && bit(basic.ecx, 29);
    has.bmi2 = bit(seven.ebx, 8);
    has.avx_vnni = ymm && bit(seven1.eax, 4);
    has.avx512 =
        zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) && bit(seven.ebx, 31);
    has.avx512_vbmi = has.avx512 && bit(seven.ecx, 1);
    has.avx512_vnni = has.avx512 && bit(seven.ecx, 11);
    has.avx512_bf16 = has.avx512 && bit(seven1.eax, 5);
    has.amx_int8 = tiles && bit(seven.edx, 25);
    has.amx_bf16 = tiles && bit(seven.edx, 22);
    return has;
}
#elif defined(__aarch64__)
CpuFeatures detect() {
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    CpuFeatures has;
    has.neon = first & HWCAP_ASIMD;
    has.fp16 = first & HWCAP_ASIMDHP;
    has.dotprod = first & HWCAP_ASIMDDP;
    has.sve = first & HWCAP_SVE;
    has.i8mm = second & HWCAP2_I8MM;
    has.bf16 = second & HWCAP2_BF16;
    return has;
}
#else
CpuFeatures detect() { return {}; }
#endif

}  // namespace

const CpuFeatures &cpu_features() {
    static const CpuFeatures once = detect();
    return once;
}

}  // namespace sprat
