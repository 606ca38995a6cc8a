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

#define SPRAT_PRODUCT(name, ...) product<Decode##name>,
#define SPRAT_DEQUANTIZE(name, ...) dequantize<Decode##name>,

extern const Isa SPRAT_ISA_TABLE = {
    SPRAT_ISA_NAME,
    {SPRAT_FORMATS(SPRAT_PRODUCT)},
    {SPRAT_FORMATS(SPRAT_DEQUANTIZE)},
    quantize,
    silu_mul,
    rms_norm,
    attend,
    attention_scratch_bytes,
    LANES,
};

}  // namespace sprat
