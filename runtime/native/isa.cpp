// Which instruction sets this processor and operating system run, best first.
#include "runtime/native/isa.hpp"

#include <cstring>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace sprat {

extern const Isa isa_plain;
#if defined(__x86_64__)
extern const Isa isa_avx2, isa_avxvnni, isa_avx512;
#elif defined(__aarch64__)
extern const Isa isa_neon, isa_i8mm;
#endif

namespace {

#if defined(__x86_64__)
// The compiler's run-time checks cover the registers that the operating system saves; AVX-VNNI is too young for GCC 12.
bool runs_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }

bool runs_avxvnni() {
    uint32_t a = 7, b = 0, c = 1, d = 0;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return runs_avx2() && (a >> 4 & 1);
}

bool runs_avx512() {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}
#elif defined(__aarch64__)
bool runs_neon() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
bool runs_i8mm() { return runs_neon() && getauxval(AT_HWCAP2) & HWCAP2_I8MM; }
#endif

struct Choice {
    const Isa *isas[4];
    int n = 0;

    Choice() {
#if defined(__x86_64__)
        __builtin_cpu_init();
        if (runs_avx512()) isas[n++] = &isa_avx512;
        if (runs_avxvnni()) isas[n++] = &isa_avxvnni;
        if (runs_avx2()) isas[n++] = &isa_avx2;
#elif defined(__aarch64__)
        if (runs_i8mm()) isas[n++] = &isa_i8mm;
        if (runs_neon()) isas[n++] = &isa_neon;
#endif
        isas[n++] = &isa_plain;
    }
};

const Choice &choice() {
    static const Choice once;
    return once;
}

}  // namespace

const Isa *const *usable_isas(int &n) {
    n = choice().n;
    return choice().isas;
}

const Isa *find_isa(const char *name) {
    for (int i = 0; i < choice().n; ++i)
        if (!*name || !std::strcmp(choice().isas[i]->name, name)) return choice().isas[i];
    return nullptr;
}

}  // namespace sprat
