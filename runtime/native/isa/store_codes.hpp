// The codes of a block of activations, where the compiler narrows integers well by itself.
#pragma once

namespace {

// Rounds 32 floats, to which kRoundMagic was added, to int8 codes, all 0 unless `usable`, and adds
// them up: the first sixteen and the others.
INLINE void store_codes(const F *shifted, bool usable, int8_t *to, int32_t *sums) {
    constexpr int N = 32 / kLanes;
    const I kept = I{} - int32_t(usable);
    F half[2] = {};
    for (int i = 0; i < N; ++i) {
        const I rounded = ((I)shifted[i] & kept) - (kRoundMagicBits & kept);
        store(to + i * kLanes, __builtin_convertvector(rounded, Bytes));
        half[i / (N / 2)] += to_float(rounded);
    }
    for (int i = 0; i < 2; ++i) sums[i] = int32_t(reduce_add(half[i]));
}

}  // namespace
