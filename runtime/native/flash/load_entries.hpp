// KV entries as float32 or as words (operands.hpp), whatever form they are stored in.
#pragma once

#include "runtime/native/flash/operands.hpp"
#include "runtime/native/kv_cache.hpp"

namespace {

using sprat::KvEntries;

INLINE void load_f16(const uint8_t *from, int n, float *to) {
    int i = 0;
    for (; i + kLanes <= n; i += kLanes)
        store(to + i, load_half(reinterpret_cast<const uint16_t *>(from) + i));
    if (i < n) {
        uint16_t rest[kLanes] = {};
        std::memcpy(rest, from + 2 * i, (n - i) * sizeof(uint16_t));
        const F elements = load_half(rest);
        std::memcpy(to + i, &elements, (n - i) * sizeof(float));
    }
}

INLINE float half_at(const uint8_t *halves, int i) { return half_to_float(halves + 2 * i); }

// The elements that an entry keeps as codes, and zeros up to a whole register.
INLINE void load_codes(const KvEntries &entries, const uint8_t *entry, float *to) {
    for (int g = 0; g < entries.n_groups(); ++g) {
        const float scale = half_at(entry + entries.scales_at(), g);
        const int at = g * entries.group, n = min(entries.n_int8 - at, entries.group);
        for (int i = 0; i < n; i += kLanes) store(to + at + i, load_int8(entry + at + i) * scale);
    }
}

// Entry `i` of `dim` elements in float32, and zeros up to `padded`, a multiple of kLanes.
INLINE void load_entry(const KvEntries &entries, int64_t i, int dim, float *to, int padded) {
    const uint8_t *from = entries.data + i * entries.stride;
    if (entries.is_float32) {
        std::memcpy(to, from, dim * sizeof(float));
    } else {
        load_codes(entries, from, to);
        load_f16(from + entries.f16_tail_at(), dim - entries.n_int8, to + entries.n_int8);
    }
    for (int j = dim; j < padded; ++j) to[j] = 0;
}

// The largest magnitude of n float16 elements. Compared by bits, as integers, so that infinity and
// NaN count as the largest.
INLINE float largest_f16(const uint16_t *from, int n) {
    typedef uint16_t Halves __attribute__((vector_size(4 * kLanes)));
    Halves largest{};
    const auto see = [&](Halves bits) {
        largest = (bits & 0x7fff) > largest ? bits & 0x7fff : largest;
    };
    int i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) see(load<Halves>(from + i));
    if (i < n) {
        uint16_t rest[2 * kLanes] = {};
        std::memcpy(rest, from + i, (n - i) * sizeof(uint16_t));
        see(load<Halves>(rest));
    }
    const I low = (I)largest & 0xffff, high = (I)largest >> 16;
    const uint16_t half = uint16_t(reduce_max(low > high ? low : high));
    return half_to_float(reinterpret_cast<const uint8_t *>(&half));
}

// A bound on the magnitude of an entry's codes times their scales.
INLINE float bound_of_codes(const uint8_t *scales, int n_groups) {
    uint16_t largest = 0;
    for (int g = 0; g < n_groups; ++g) {
        const uint16_t scale = load<uint16_t>(scales + 2 * g) & 0x7fff;
        largest = scale > largest ? scale : largest;
    }
    return 128 * half_at(reinterpret_cast<const uint8_t *>(&largest), 0);
}

// n float16 elements as words, and zeros up to `padded`.
INLINE void pack_f16(const uint16_t *from, int n, int padded, float inverse, int32_t *out) {
    const auto pack = [&](const uint16_t *at) {
        const F elements[2] = {load_half(at) * inverse, load_half(at + kLanes) * inverse};
        return I16PairOperand::pack(elements);
    };
    int i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) store(out + i / 2, pack(from + i));
    if (i == padded) return;
    uint16_t rest[2 * kLanes] = {};
    std::memcpy(rest, from + i, (n - i) * sizeof(uint16_t));
    store(out + i / 2, pack(rest));
    for (i += 2 * kLanes; i < padded; i += 2 * kLanes) store(out + i / 2, I{});
}

// The same of any operand, at the row's own scale, which is returned.
template <class W>
INLINE float pack_f16_row(const uint16_t *from, int n, int padded, typename W::Word *out) {
    if constexpr (W::kPerWord == 1) {
        load_f16(reinterpret_cast<const uint8_t *>(from), n, out);
        for (int i = n; i < padded; ++i) out[i] = 0;
        return 1;
    } else {
        const float scale = largest_f16(from, n) / kCodeLimit;
        pack_f16(from, n, padded, inverse_of(scale), out);
        return scale;
    }
}

// Whole groups of codes as words.
INLINE void pack_codes(const KvEntries &entries, const uint8_t *entry, float inverse,
                       int32_t *out) {
    for (int g = 0; g < entries.n_groups(); ++g) {
        const float scale = half_at(entry + entries.scales_at(), g) * inverse;
        const uint8_t *at = entry + g * entries.group, *end = at + entries.group;
        for (; at < end; at += 2 * kLanes, out += kLanes) {
            const F elements[2] = {load_int8(at) * scale, load_int8(at + kLanes) * scale};
            store(out, I16PairOperand::pack(elements));
        }
    }
}

// Entry `i` of `dim` elements as words, zeros up to `padded`; returns their scale. `space` holds an
// entry in float32.
template <class W>
INLINE float pack_entry(const KvEntries &entries, int64_t i, int dim, int padded, float *space,
                        typename W::Word *out) {
    if constexpr (W::kPerWord == 2) {
        if (!entries.is_float32 &&
            entries.n_int8 % entries.group == 0) {  // without a way through float32
            const int n_halves = dim - entries.n_int8;
            const uint8_t *from = entries.data + i * entries.stride;
            const uint16_t *halves =
                reinterpret_cast<const uint16_t *>(from + entries.f16_tail_at());
            const float size = largest_f16(halves, n_halves);
            const float of_codes = bound_of_codes(from + entries.scales_at(), entries.n_groups());
            const float scale = (of_codes <= size || size != size ? size : of_codes) / kCodeLimit;
            const float inverse = inverse_of(scale);
            pack_codes(entries, from, inverse, out);
            pack_f16(halves, n_halves, padded - entries.n_int8, inverse, out + entries.n_int8 / 2);
            return scale;
        }
    }
    load_entry(entries, i, dim, space, padded);
    return pack_row<W>(space, padded, kCodeLimit, out);
}

}  // namespace
