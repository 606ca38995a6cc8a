// A block format as the native core sees it: two functions between packed blocks and float32.
//
// Any format can be unpacked into a small buffer and packed from it, so one loop converts between
// any two, and quantizing BF16 or dequantizing to F32 are just two of its cases. The functions
// exist for each vector length of the processor family. No variant may give other bytes than NumPy:
// quant/native is compiled with -ffp-contract=off, sums are added in the order of
// quant/formats/shared/fit.py, and nothing is reassociated.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/native/formats.hpp"

namespace sprat {

using Pack = void (*)(const float *weights, uint8_t *packed, size_t n_blocks);
// The same, with the importance of each weight's squared error, normalized by block.
using PackWeighted = void (*)(const float *weights, const float *importance, uint8_t *packed,
                              size_t n_blocks);
using Unpack = void (*)(const uint8_t *packed, float *weights, size_t n_blocks);

struct Codec {
    Pack pack[3];  // for vectors of 4, 8 and 16 lanes
    PackWeighted pack_weighted[3];
    Unpack unpack[3];
};

// Inlined into callers that are compiled for longer vectors.
#define SPRAT_INLINED __attribute__((always_inline))
#define SPRAT_INLINE static inline SPRAT_INLINED

// pack_weighted<W>, or pack<W> of a format that has no choice among codes.
template <class Blocks, int W>
SPRAT_INLINE void pack_weighted(const float *weights, const float *importance, uint8_t *packed,
                                size_t n) {
    if constexpr (requires { Blocks::template pack_weighted<W>(weights, importance, packed, n); })
        Blocks::template pack_weighted<W>(weights, importance, packed, n);
    else Blocks::template pack<W>(weights, packed, n);
}

// Blocks has pack<W> and unpack<W> for vectors of W lanes, always inline, and block_bytes; a format
// that searches has pack_weighted<W> too.
template <class Blocks> struct Variants {
    static void pack(const float *weights, uint8_t *packed, size_t n) {
        Blocks::template pack<4>(weights, packed, n);
    }
    static void weighted(const float *weights, const float *importance, uint8_t *packed, size_t n) {
        pack_weighted<Blocks, 4>(weights, importance, packed, n);
    }
    static void unpack(const uint8_t *packed, float *weights, size_t n) {
        Blocks::template unpack<4>(packed, weights, n);
    }

#if defined(__x86_64__)
#define SPRAT_AVX2 __attribute__((target("avx2,bmi2")))
#define SPRAT_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi2")))

    SPRAT_AVX2 static void pack_avx2(const float *weights, uint8_t *packed, size_t n) {
        Blocks::template pack<8>(weights, packed, n);
    }
    SPRAT_AVX2 static void weighted_avx2(const float *weights, const float *importance,
                                         uint8_t *packed, size_t n) {
        pack_weighted<Blocks, 8>(weights, importance, packed, n);
    }
    SPRAT_AVX2 static void unpack_avx2(const uint8_t *packed, float *weights, size_t n) {
        Blocks::template unpack<8>(packed, weights, n);
    }
    SPRAT_AVX512 static void pack_avx512(const float *weights, uint8_t *packed, size_t n) {
        Blocks::template pack<16>(weights, packed, n);
    }
    SPRAT_AVX512 static void weighted_avx512(const float *weights, const float *importance,
                                             uint8_t *packed, size_t n) {
        pack_weighted<Blocks, 16>(weights, importance, packed, n);
    }
    SPRAT_AVX512 static void unpack_avx512(const uint8_t *packed, float *weights, size_t n) {
        Blocks::template unpack<16>(packed, weights, n);
    }
#else
    static constexpr Pack pack_avx2 = pack, pack_avx512 = pack;
    static constexpr PackWeighted weighted_avx2 = weighted, weighted_avx512 = weighted;
    static constexpr Unpack unpack_avx2 = unpack, unpack_avx512 = unpack;
#endif

    static constexpr Codec codec{{pack, pack_avx2, pack_avx512},
                                 {weighted, weighted_avx2, weighted_avx512},
                                 {unpack, unpack_avx2, unpack_avx512}};
};

// codec_Q4_0() and so on: one for each format of the list.
#define SPRAT_DECLARE_CODEC(name, ...) Codec codec_##name();
SPRAT_FORMATS(SPRAT_DECLARE_CODEC)
#undef SPRAT_DECLARE_CODEC

// Each is defined by the file that has its Blocks.
#define SPRAT_DEFINE_CODEC(name, ...)                                          \
    Codec codec_##name() {                                                     \
        static_assert(__VA_ARGS__::block_bytes == kLayouts[name].block_bytes); \
        return Variants<__VA_ARGS__>::codec;                                   \
    }

}  // namespace sprat
