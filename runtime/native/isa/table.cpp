// All kernels for one instruction set. CMake compiles this file once per set, with that set's
// options and
//   SPRAT_ISA_HEADER  its primitives, "runtime/native/isa/x86/avx2.hpp"
//   SPRAT_ISA_TABLE   the table's name, isa_avx2
//   SPRAT_ISA_NAME    what SPRAT_ISA and sprat doctor call it, "avx2"
#include SPRAT_ISA_HEADER

#include "runtime/native/flash/dispatch.hpp"
#include "runtime/native/gemm/elementwise.hpp"
#include "runtime/native/gemm/float_gemm.hpp"
#include "runtime/native/gemm/gemm.hpp"
#include "runtime/native/isa/isa.hpp"

namespace sprat {

#define SPRAT_GEMM(name, ...) gemm_task<Decode##name>,
#define SPRAT_DEQUANTIZE(name, ...) dequantize<Decode##name>,

extern const Isa SPRAT_ISA_TABLE = {
    SPRAT_ISA_NAME,
    {SPRAT_FORMATS(SPRAT_GEMM)},
    {SPRAT_FORMATS(SPRAT_DEQUANTIZE)},
    quantize,
    silu_mul,
    rms_norm,
    attend,
    attention_scratch_bytes,
    kLanes,
};

}  // namespace sprat
