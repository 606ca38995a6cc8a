// The parts of one task's scratch memory.
#pragma once

#include "runtime/native/flash/online_softmax.hpp"

namespace {

// Hands out the parts of a scratch, aligned to 64 bytes each; without one it only counts them, for
// attention_scratch_bytes.
struct ScratchLayout {
    uint8_t *base;
    size_t used = 0;

    template <class T> T *take(int64_t n) {
        T *at = base ? reinterpret_cast<T *>(base + used) : nullptr;
        used += (size_t(n) * sizeof(T) + 63) / 64 * 64;
        return at;
    }

    OnlineSoftmax softmax(const AttentionTask &task, int columns, int block_entries) {
        return {task,
                take<float>(columns),
                take<float>(columns),
                take<int32_t>(columns),
                take<float>(block_entries * kAttnNR),
                {}};
    }
    template <class W> PackedColumns<W> columns(int n, int dim) {
        const int columns = round_up(n, kLanes),
                  n_words = round_up(dim, kLanes * W::kPerWord) / W::kPerWord;
        return {take<typename W::Word>(int64_t(columns) * n_words), take<float>(columns), columns,
                n_words};
    }
};

}  // namespace
