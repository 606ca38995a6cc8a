// Which form of attention a task gets, and how much scratch that form wants.
#pragma once

#include <type_traits>

#include "runtime/native/flash/few_queries.hpp"
#include "runtime/native/flash/flash.hpp"
#include "runtime/native/flash/int8_latents.hpp"

namespace {

// use(form): of the class that fits the task. `D` is void where an instruction set has no products
// of bytes.
template <class D, class Use>
auto with_form(const AttentionTask &task, uint8_t *scratch, const Use &use) {
    if (FlashFewQueries::supports(task)) {
        FlashFewQueries form(task, scratch);
        return use(form);
    }
    if constexpr (!std::is_void_v<D>) {
        if (FlashInt8Latents<D>::supports(task)) {
            FlashInt8Latents<D> form(task, scratch);
            return use(form);
        }
    }
    if (task.keys.is_float32) {
        Flash<F32Operand> form(task, scratch);
        return use(form);
    }
    Flash<EntryOperand> form(task, scratch);
    return use(form);
}

size_t attention_scratch_bytes(const AttentionTask &task) {
    return with_form<ByteDot>(task, nullptr, [](const auto &form) { return form.scratch_bytes(); });
}

void attend(const AttentionTask &task) {
    with_form<ByteDot>(task, task.scratch, [](auto &form) { form.run(); });
}

}  // namespace
