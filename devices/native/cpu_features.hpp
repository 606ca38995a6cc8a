// CPU features that the processor and its operating system support, detected once, here. `sprat
// doctor`, the choice of kernels (runtime/native/isa/isa.cpp) and of quantizers
// (quant/native/convert.cpp) all use it.
#pragma once

// X(name) of each feature. A name covers all that its users need: avx512 is the F, BW, DQ and VL
// parts together, which no processor has apart from each other since Skylake-X.
#if defined(__x86_64__)
// clang-format off
#define SPRAT_CPU_FEATURES(X)                                                  \
    X(avx2) X(fma) X(f16c) X(bmi2) X(avx_vnni)                                 \
    X(avx512) X(avx512_vbmi) X(avx512_vnni) X(avx512_bf16)                     \
    X(amx_int8) X(amx_bf16)
// clang-format on
#elif defined(__aarch64__)
#define SPRAT_CPU_FEATURES(X) X(neon) X(fp16) X(dotprod) X(sve) X(i8mm) X(bf16)
#else
#define SPRAT_CPU_FEATURES(X)
#endif

namespace sprat {

struct CpuFeatures {
#define SPRAT_CPU_FEATURE(name) bool name = false;
    SPRAT_CPU_FEATURES(SPRAT_CPU_FEATURE)
#undef SPRAT_CPU_FEATURE
};

const CpuFeatures &cpu_features();

}  // namespace sprat
