// Ends of a block of gemm/gemm.hpp where a register holds four rows' dot products with one token.
//
// Vector units are the limit, so that everything else is left to loads: a factor of a token is the
// lane of a multiply-add, and what a multiply-add overwrites is loaded. Two of them then convert a
// sum, scale it and add it, see kShiftedScales in gemm/panel.hpp.
#pragma once

namespace {

constexpr bool kShiftedScales = true;

// total + x * factor, for one factor. The compiler would copy it to every lane.
INLINE F add_scaled(F total, F x, float factor) {
    asm("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(total) : "w"(x), "w"(factor));
    return total;
}
INLINE F add_block(F total, I dots, F scale, const float *shift, const float *factor, int i,
                   int j) {
    const F x = (F)vfmaq_f32(load_unchanged<float32x4_t>(shift, i, j), (float32x4_t)dots,
                             (float32x4_t)scale);
    return add_scaled(total, x, *factor);
}
INLINE F add_minimum(F total, F minimum, const float *factor) {
    return add_scaled(total, minimum, *factor);
}

}  // namespace
