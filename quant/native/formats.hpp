// The formats that the native core knows, in one list: the declarations and tables of quantizers
// (codec.hpp) and kernels (runtime/native/isa/table.cpp) are made from it.
//
// To add a format: a line here, a codec in this folder, a decoder in
// runtime/native/gemm/decoders.hpp.
#pragma once

#include <cstddef>

// X(name, ggml type number, elements of a block, bytes of a block); names and layouts are ggml's
// (ggml-common.h). The float formats come first: wants_quantized() in runtime/native relies on it.
#define SPRAT_FORMATS(X)    \
    X(F32, 0, 1, 4)         \
    X(F16, 1, 1, 2)         \
    X(BF16, 30, 1, 2)       \
    X(Q4_0, 2, 32, 18)      \
    X(Q4_1, 3, 32, 20)      \
    X(Q5_0, 6, 32, 22)      \
    X(Q5_1, 7, 32, 24)      \
    X(Q8_0, 8, 32, 34)      \
    X(IQ4_NL, 20, 32, 18)   \
    X(Q4_K, 12, 256, 144)   \
    X(Q5_K, 13, 256, 176)   \
    X(Q6_K, 14, 256, 210)   \
    X(IQ4_XS, 23, 256, 136) \
    X(Q3_K, 11, 256, 110)   \
    X(Q2_K, 10, 256, 84)    \
    X(Q2_0, 42, 64, 18)     \
    X(MXFP4, 39, 32, 17)    \
    X(NVFP4, 40, 64, 36)

namespace sprat {

#define SPRAT_FORMAT_NAME(name, ...) name,
enum Format : int { SPRAT_FORMATS(SPRAT_FORMAT_NAME) N_FORMATS };
#undef SPRAT_FORMAT_NAME

struct BlockLayout {
    const char *name;
    int ggml_type;
    size_t block_size, block_bytes;  // elements, bytes
};

#define SPRAT_FORMAT_LAYOUT(name, type, size, bytes) {#name, type, size, bytes},
constexpr BlockLayout kLayouts[N_FORMATS] = {SPRAT_FORMATS(SPRAT_FORMAT_LAYOUT)};
#undef SPRAT_FORMAT_LAYOUT

}  // namespace sprat
