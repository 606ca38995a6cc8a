// All kernels for one instruction set. CMake compiles this file once per set, with that set's options and
//   SPRAT_ISA_HEADER  its primitives, "runtime/native/isa/avx2.hpp"
//   SPRAT_ISA_TABLE   the table's name, isa_avx2
//   SPRAT_ISA_NAME    what SPRAT_ISA and sprat doctor call it, "avx2"
#include SPRAT_ISA_HEADER

#include "runtime/native/formats.hpp"
//
#include "runtime/native/attend_forms.hpp"
#include "runtime/native/elementwise.hpp"
#include "runtime/native/float_weights.hpp"
#include "runtime/native/isa.hpp"
#include "runtime/native/many_tokens.hpp"

namespace sprat {

// In the order of Format.
extern const Isa SPRAT_ISA_TABLE = {
    SPRAT_ISA_NAME,
    {float_product<DecodeF32>, float_product<DecodeF16>, float_product<DecodeBF16>, blocks_product<DecodeQ4_0>,
     blocks_product<DecodeQ4_1>, blocks_product<DecodeQ5_0>, blocks_product<DecodeQ5_1>, blocks_product<DecodeQ8_0>,
     blocks_product<DecodeIQ4_NL>, blocks_product<DecodeQ4_K>, blocks_product<DecodeQ5_K>, blocks_product<DecodeQ6_K>},
    {float_dequantize<DecodeF32>, float_dequantize<DecodeF16>, float_dequantize<DecodeBF16>, blocks_dequantize<DecodeQ4_0>,
     blocks_dequantize<DecodeQ4_1>, blocks_dequantize<DecodeQ5_0>, blocks_dequantize<DecodeQ5_1>,
     blocks_dequantize<DecodeQ8_0>, blocks_dequantize<DecodeIQ4_NL>, blocks_dequantize<DecodeQ4_K>,
     blocks_dequantize<DecodeQ5_K>, blocks_dequantize<DecodeQ6_K>},
    quantize,
    silu_mul,
    rms_norm,
    attend,
    attention_scratch_bytes,
    LANES,
};

}  // namespace sprat
