// Which instruction sets this processor and operating system run, best first.
#include "runtime/native/isa/isa.hpp"

#include <cstring>

#include "devices/native/cpu_features.hpp"

namespace sprat {

extern const Isa isa_plain;
#if defined(__x86_64__)
extern const Isa isa_avx2, isa_avxvnni, isa_avx512;
#elif defined(__aarch64__)
extern const Isa isa_neon8, isa_neon, isa_i8mm;
#endif

namespace {

// Each set is compiled for the features named here; see add_isa in CMakeLists.txt.
struct Choice {
    const Isa *isas[4];
    int n = 0;

    Choice() {
        [[maybe_unused]] const CpuFeatures &cpu = cpu_features();
#if defined(__x86_64__)
        const bool avx2 = cpu.avx2 && cpu.fma && cpu.f16c;
        if (avx2 && cpu.avx512 && cpu.avx512_vbmi && cpu.avx512_vnni) isas[n++] = &isa_avx512;
        if (avx2 && cpu.avx_vnni) isas[n++] = &isa_avxvnni;
        if (avx2) isas[n++] = &isa_avx2;
#elif defined(__aarch64__)
        if (cpu.dotprod && cpu.i8mm) isas[n++] = &isa_i8mm;
        if (cpu.dotprod) isas[n++] = &isa_neon;
        if (cpu.neon) isas[n++] = &isa_neon8;
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
