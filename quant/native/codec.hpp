// A block format as the native core sees it: two functions between packed blocks and float32.
//
// Any format can be unpacked into a small buffer and packed from it, so one loop converts between any two, and
// quantizing BF16 or dequantizing to F32 are just two of its cases. The functions exist for each vector length of the
// processor family. No variant may give other bytes than NumPy: quant/native is compiled with -ffp-contract=off, sums
// are added in the order of quant/formats/fit.py, and nothing is reassociated.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sprat {

using Pack = void (*)(const float *weights, uint8_t *packed, size_t n_blocks);
using Unpack = void (*)(const uint8_t *packed, float *weights, size_t n_blocks);

struct Codec {
    int ggml_type;
    size_t block_size;  // weights
    size_t block_bytes;
    Pack pack[3];       // for vectors of 4, 8 and 16 lanes
    Unpack unpack[3];
};

#define SPRAT_INLINED __attribute__((always_inline))  // into a caller that is compiled for longer vectors
#define SPRAT_INLINE static inline SPRAT_INLINED

// Format has ggml_type, block_size, block_bytes, and pack<W>, unpack<W> for vectors of W lanes, always inline.
template <class Format>
struct Variants {
    static void pack(const float *weights, uint8_t *packed, size_t n) {
        Format::template pack<4>(weights, packed, n);
    }
    static void unpack(const uint8_t *packed, float *weights, size_t n) {
        Format::template unpack<4>(packed, weights, n);
    }

#if defined(__x86_64__)
#define SPRAT_AVX2 __attribute__((target("avx2,bmi2")))
#define SPRAT_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi2")))

    SPRAT_AVX2 static void pack_avx2(const float *weights, uint8_t *packed, size_t n) {
        Format::template pack<8>(weights, packed, n);
    }
    SPRAT_AVX2 static void unpack_avx2(const uint8_t *packed, float *weights, size_t n) {
        Format::template unpack<8>(packed, weights, n);
    }
    SPRAT_AVX512 static void pack_avx512(const float *weights, uint8_t *packed, size_t n) {
        Format::template pack<16>(weights, packed, n);
    }
    SPRAT_AVX512 static void unpack_avx512(const uint8_t *packed, float *weights, size_t n) {
        Format::template unpack<16>(packed, weights, n);
    }
#else
    static constexpr Pack pack_avx2 = pack, pack_avx512 = pack;
    static constexpr Unpack unpack_avx2 = unpack, unpack_avx512 = unpack;
#endif

    static constexpr Codec codec{Format::ggml_type,
                                 Format::block_size,
                                 Format::block_bytes,
                                 {pack, pack_avx2, pack_avx512},
                                 {unpack, unpack_avx2, unpack_avx512}};
};

// One per family; each file exports its own.
Codec f32_codec();
Codec f16_codec();
Codec bf16_codec();
Codec q8_0_codec();
Codec q4_0_codec();
Codec q4_1_codec();
Codec q5_0_codec();
Codec q5_1_codec();
Codec iq4_nl_codec();
Codec q4_k_codec();
Codec q5_k_codec();
Codec q6_k_codec();

}  // namespace sprat
