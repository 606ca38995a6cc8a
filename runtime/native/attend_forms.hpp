// Which form of attention a task gets, and how much scratch that form wants.
#pragma once

#include <type_traits>

#include "runtime/native/attend.hpp"
#include "runtime/native/attend_few.hpp"
#include "runtime/native/attend_latents.hpp"

namespace {

// use(form): of the class that fits the task. `D` is void where an instruction set has no products of bytes.
template <class D, class Use> auto with_form(const Attention &a, uint8_t *scratch, const Use &use) {
    if (FewFlash::takes(a)) {
        FewFlash form(a, scratch);
        return use(form);
    }
    if constexpr (!std::is_void_v<D>) {
        if (LatentFlash<D>::takes(a)) {
            LatentFlash<D> form(a, scratch);
            return use(form);
        }
    }
    if (a.keys.floats) {
        Flash<FloatWords> form(a, scratch);
        return use(form);
    }
    Flash<PairWords> form(a, scratch);
    return use(form);
}

size_t attention_scratch_bytes(const Attention &a) {
    return with_form<ByteDots>(a, nullptr, [](const auto &form) { return form.scratch_bytes(); });
}

void attend(const Attention &a) {
    with_form<ByteDots>(a, a.scratch, [](auto &form) { form.run(); });
}

}  // namespace
