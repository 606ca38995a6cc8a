// Q8_0, Q4_0, Q4_1, Q5_0, Q5_1: blocks of 32 with a scale from their extreme values; see
// quant/formats/legacy.py.
#include "quant/native/blocks.hpp"

namespace sprat {
namespace {

constexpr int kSize = 32;

// Codes of one block, in order.
template <int W> struct Codes {
    static constexpr int parts = kSize / W;
    Ints<W> part[parts];
};

constexpr auto minimum = [](auto a, auto b) SPRAT_INLINED { return a < b ? a : b; };
constexpr auto maximum = [](auto a, auto b) SPRAT_INLINED { return a > b ? a : b; };
constexpr auto both = [](auto a, auto b) SPRAT_INLINED { return a | b; };

// Bits of a float as an integer of the same order, in which NaN and -0 have a place: minimum and
// maximum do not depend on the order of comparisons.
template <class I> SPRAT_INLINE I ordered(I bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

struct Range {
    float low, high;
};

template <int W> SPRAT_INLINE Range range_of(const float *x) {
    Ints<W> low = ordered((Ints<W>)load<W>(x)), high = low;
    for (int j = W; j < kSize; j += W) {
        const Ints<W> key = ordered((Ints<W>)load<W>(x + j));
        low = smaller(low, key);
        high = larger(high, key);
    }
    const int32_t lowest = fold<W>(low, minimum), highest = fold<W>(high, maximum);
    return {std::bit_cast<float>(ordered(lowest)), std::bit_cast<float>(ordered(highest))};
}

SPRAT_INLINE float first_equal(const float *x, float a, float b) {
    for (int j = 0; j < kSize; ++j)
        if (x[j] == a || x[j] == b) return x[j];
    return a;
}

// Codes of non-negative values; 0 for infinity and NaN.
template <int W>
SPRAT_INLINE Codes<W> truncate(const float *x, float offset, float scale, float half, int largest) {
    Codes<W> codes;
    for (int i = 0; i < codes.parts; ++i) {
        const Floats<W> value = (load<W>(x + W * i) - offset) * scale + half;
        const Ints<W> code = __builtin_convertvector(value < 256.f ? value : Floats<W>{}, Ints<W>);
        codes.part[i] = larger(smaller(code, Ints<W>{} + largest), Ints<W>{});
    }
    return codes;
}

template <int W> SPRAT_INLINE void pack_nibbles(const Codes<W> &codes, uint8_t *qs) {
    constexpr int half = Codes<W>::parts / 2;
    for (int i = 0; i < half; ++i)
        store_bytes<W>(qs + W * i, (codes.part[i] & 15) | (codes.part[i + half] & 15) << 4);
}

template <int W> SPRAT_INLINE Codes<W> unpack_nibbles(const uint8_t *qs) {
    constexpr int half = Codes<W>::parts / 2;
    Codes<W> codes;
    for (int i = 0; i < half; ++i) {
        const Ints<W> pairs = load_bytes<W>(qs + W * i);
        codes.part[i] = pairs & 15;
        codes.part[i + half] = pairs >> 4;
    }
    return codes;
}

template <int W> SPRAT_INLINE void pack_five(const Codes<W> &codes, uint8_t *packed) {
    Ints<W> bits{};
    for (int i = 0; i < codes.parts; ++i) bits |= (codes.part[i] >> 4) << (counting<W>() + W * i);
    const int32_t fifth = fold<W>(bits, both);
    std::memcpy(packed, &fifth, 4);
    pack_nibbles<W>(codes, packed + 4);
}

template <int W> SPRAT_INLINE Codes<W> unpack_five(const uint8_t *packed) {
    int32_t fifth;
    std::memcpy(&fifth, packed, 4);
    Codes<W> codes = unpack_nibbles<W>(packed + 4);
    for (int i = 0; i < codes.parts; ++i)
        codes.part[i] |= ((fifth >> (counting<W>() + W * i)) & 1) << 4;
    return codes;
}

// d * (code - zero) + m
template <int W>
SPRAT_INLINE void expand(const Codes<W> &codes, int zero, float d, float m, float *x) {
    for (int i = 0; i < codes.parts; ++i)
        store<W>(x + W * i, d * __builtin_convertvector(codes.part[i] - zero, Floats<W>) + m);
}

// Levels of the search with importance: smallest .. largest.
template <int smallest, int largest> struct Levels {
    template <class F> SPRAT_INLINE F nearest(F scaled) {
        return nearest_whole(scaled, float(smallest), float(largest));
    }
};
struct Levels8 : Levels<-127, 127> {
    static constexpr int kStarts = 9;

    SPRAT_INLINE float start(int k) { return 124.f + float(k) / 2; }
    template <class F> SPRAT_INLINE F code(F scaled) { return nearest(scaled); }
};
template <int zero> struct SymmetricLevels : Levels<-zero, zero - 1> {
    static constexpr int kStarts = 10;

    SPRAT_INLINE float start(int k) {
        return k < 6 ? -(float(zero) + float(k - 3) / 2) : float(zero) + float(k - 9) / 2;
    }
    template <class F> SPRAT_INLINE F code(F scaled) {
        return Levels<-zero, zero - 1>::nearest(scaled) + float(zero);
    }
};

template <int W> SPRAT_INLINE Codes<W> codes_of(const int *code) {
    Codes<W> codes;
    std::memcpy(codes.part, code, sizeof codes.part);
    return codes;
}

struct Blocks8 {  // Q8_0: d, qs
    static constexpr size_t block_bytes = 2 + kSize;

    template <int W> SPRAT_INLINE void pack(const float *x, uint8_t *packed, size_t n) {
        for (; n; --n, x += kSize, packed += block_bytes) {
            Ints<W> largest{};
            for (int j = 0; j < kSize; j += W)
                largest = larger(largest, (Ints<W>)load<W>(x + j) & 0x7fffffff);
            const float d = std::bit_cast<float>(fold<W>(largest, maximum)) / 127.f,
                        scale = reciprocal(d);
            store_half(packed, d);
            for (int j = 0; j < kSize; j += W)
                store_bytes<W>(packed + 2 + j, rounded<W>(load<W>(x + j) * scale));
        }
    }
    template <int W>
    SPRAT_INLINE void pack_weighted(const float *x, const float *importance, uint8_t *packed,
                                    size_t n) {
        const auto write = [&](size_t block, float d, const int *codes) SPRAT_INLINED {
            uint8_t *to = packed + block_bytes * block;
            store_half(to, d);
            for (int j = 0; j < kSize; ++j) to[2 + j] = uint8_t(codes[j]);
        };
        search_blocks<Levels8, kSize, W>(x, Importance{importance}, n, write);
    }
    // Rounds half away from zero; 0 for infinity and NaN.
    template <int W> SPRAT_INLINE Ints<W> rounded(Floats<W> scaled) {
        const Floats<W> size = magnitude(scaled), known = size < 256.f ? size : Floats<W>{};
        const Ints<W> whole = __builtin_convertvector(known, Ints<W>);
        // A comparison that holds is -1.
        const Ints<W> up = whole - (known - __builtin_convertvector(whole, Floats<W>) >= 0.5f);
        return scaled < 0.f ? -up : up;
    }
    template <int W> SPRAT_INLINE void unpack(const uint8_t *packed, float *x, size_t n) {
        for (; n; --n, x += kSize, packed += block_bytes) {
            const float d = load_half(packed);
            for (int j = 0; j < kSize; j += W) {
                const Ints<W> q = (load_bytes<W>(packed + 2 + j) ^ 0x80) - 0x80;  // sign extension
                store<W>(x + j, d * __builtin_convertvector(q, Floats<W>));
            }
        }
    }
};

template <bool five> struct Symmetric {  // Q4_0, Q5_0: d, qs
    static constexpr int zero = five ? 16 : 8;
    static constexpr size_t block_bytes = 2 + (five ? 4 : 0) + kSize / 2;

    template <int W> SPRAT_INLINE void pack(const float *x, uint8_t *packed, size_t n) {
        for (; n; --n, x += kSize, packed += block_bytes) {
            // The first value of the largest magnitude decides the sign of the scale.
            const auto [low, high] = range_of<W>(x);
            const float extreme = high > -low   ? high
                                  : high < -low ? low
                                                : first_equal(x, low, high);
            const float d = (extreme + 0.f) / float(-zero);
            const Codes<W> codes =
                truncate<W>(x, 0.f, reciprocal(d), float(zero) + 0.5f, 2 * zero - 1);
            store_half(packed, d);
            five ? pack_five<W>(codes, packed + 2) : pack_nibbles<W>(codes, packed + 2);
        }
    }
    template <int W>
    SPRAT_INLINE void pack_weighted(const float *x, const float *importance, uint8_t *packed,
                                    size_t n) {
        const auto write = [&](size_t block, float d, const int *found) SPRAT_INLINED {
            uint8_t *to = packed + block_bytes * block;
            const Codes<W> codes = codes_of<W>(found);
            store_half(to, d);
            five ? pack_five<W>(codes, to + 2) : pack_nibbles<W>(codes, to + 2);
        };
        search_blocks<SymmetricLevels<zero>, kSize, W>(x, Importance{importance}, n, write);
    }
    template <int W> SPRAT_INLINE void unpack(const uint8_t *packed, float *x, size_t n) {
        for (; n; --n, x += kSize, packed += block_bytes) {
            const Codes<W> codes =
                five ? unpack_five<W>(packed + 2) : unpack_nibbles<W>(packed + 2);
            expand<W>(codes, zero, load_half(packed), -0.f, x);  // adding -0 changes nothing
        }
    }
};

template <bool five> struct WithMinimum {  // Q4_1, Q5_1: d, m, qs
    static constexpr int steps = five ? 31 : 15;
    static constexpr size_t block_bytes = 4 + (five ? 4 : 0) + kSize / 2;

    template <int W> SPRAT_INLINE void pack(const float *x, uint8_t *packed, size_t n) {
        for (; n; --n, x += kSize, packed += block_bytes) {
            const auto [low, high] = range_of<W>(x);
            const float m = low == 0 ? first_equal(x, low, low) : low,
                        d = (high - low + 0.f) / float(steps);
            const Codes<W> codes = truncate<W>(x, m, reciprocal(d), 0.5f, steps);
            store_half(packed, d);
            store_half(packed + 2, m);
            five ? pack_five<W>(codes, packed + 4) : pack_nibbles<W>(codes, packed + 4);
        }
    }
    // _searched_affine
    template <int W>
    SPRAT_INLINE void pack_weighted(const float *x, const float *importance, uint8_t *packed,
                                    size_t n) {
        for (size_t done = 0; done < n; done += kLanes) {
            const int here = int(std::min<size_t>(n - done, kLanes));
            LaneBlock<kSize> lanes, codes;
            alignas(64) float d[kLanes], m[kLanes];
            to_lanes(x + kSize * done, here, lanes);
            const auto w = Importance{importance}.lanes<kSize>(kSize * done, here);
            for (int lane = 0; lane < kLanes; lane += W) {
                const Affine<W> fit = affine_fit<W, true>(lanes, w, lane, float(steps));
                store<W>(d + lane, fit.s);
                store<W>(m + lane, -fit.m);
                for (int i = lane; i < lane + W; ++i)
                    d[i] = saturate_half(d[i]), m[i] = saturate_half(m[i]);
                const Floats<W> per_scale = reciprocal(load<W>(d + lane));
                for (int j = 0; j < kSize; ++j)
                    store<W>(&codes.row[j][lane],
                             nearest_whole(
                                 (load<W>(&lanes.row[j][lane]) - load<W>(m + lane)) * per_scale,
                                 0.f, float(steps)));
            }
            for (int lane = 0; lane < here; ++lane, packed += block_bytes) {
                int code[kSize];
                for (int j = 0; j < kSize; ++j) code[j] = int(codes.row[j][lane]);
                store_half(packed, d[lane]);
                store_half(packed + 2, m[lane]);
                five ? pack_five<W>(codes_of<W>(code), packed + 4)
                     : pack_nibbles<W>(codes_of<W>(code), packed + 4);
            }
        }
    }
    template <int W> SPRAT_INLINE void unpack(const uint8_t *packed, float *x, size_t n) {
        for (; n; --n, x += kSize, packed += block_bytes) {
            const Codes<W> codes =
                five ? unpack_five<W>(packed + 4) : unpack_nibbles<W>(packed + 4);
            expand<W>(codes, 0, load_half(packed), load_half(packed + 2), x);
        }
    }
};

}  // namespace

SPRAT_DEFINE_CODEC(Q8_0, Blocks8)
SPRAT_DEFINE_CODEC(Q4_0, Symmetric<false>)
SPRAT_DEFINE_CODEC(Q5_0, Symmetric<true>)
SPRAT_DEFINE_CODEC(Q4_1, WithMinimum<false>)
SPRAT_DEFINE_CODEC(Q5_1, WithMinimum<true>)

}  // namespace sprat
