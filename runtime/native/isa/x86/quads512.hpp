// 128 codes at once: four blocks that keep two codes to a byte, 16 bytes each.
//
//   low    | block 0: codes 0-15  | block 1: 0-15  | block 2: 0-15  | block 3: 0-15  |
//   high   | block 0: codes 16-31 | block 1: 16-31 | block 2: 16-31 | block 3: 16-31 |
//
// Both add to the same sums, a quarter of a register for each block. So 128 codes cost one
// conversion to float and one product with scales, where two pairs of blocks cost two: a group of
// Q4_0 (256 weights, 144 bytes) takes 29 operations on the two vector ports of AVX-512 instead
// of 40.
#pragma once

namespace {

struct LowAndHigh {
    Chunk low, high;
};

// The 16 bytes of each of four blocks kStride bytes apart, of which the first begins at kFirst. The
// last block ends beyond the first 64 bytes: a second load, kBehind bytes further on, brings the
// rest of it to its place.
template <int kFirst, int kStride> INLINE Chunk packed4(const uint8_t *p) {
    constexpr int kBehind = 3 * kStride + 16 - 64, kMoved = kBehind < 16 ? kBehind : 16;
    alignas(64) static constexpr auto order = [] {
        struct {
            uint8_t at[64];
        } o{};
        for (int i = 0; i < 64; ++i) o.at[i] = uint8_t(i / 16 * kStride + i % 16);
        return o;
    }();
    const Chunk first =
        _mm512_permutexvar_epi8(_mm512_load_si512(&order), _mm512_loadu_si512(p + kFirst));
    return _mm512_mask_loadu_epi8(first, ~0ull << (64 - kMoved), p + kFirst + kBehind);
}

// Formats of two codes to a byte: the bytes of blocks 4 c to 4 c + 3, and what a nibble stands for.
template <class D> struct Nibbles {};
template <> struct Nibbles<DecodeQ4_0> {
    static INLINE Chunk four(const uint8_t *g, int c) { return packed4<2, 18>(g + 72 * c); }
    static INLINE Chunk codes(Chunk nibbles) { return nibbles; }
};
template <> struct Nibbles<DecodeQ4_1> {
    static INLINE Chunk four(const uint8_t *g, int c) { return packed4<4, 20>(g + 80 * c); }
    static INLINE Chunk codes(Chunk nibbles) { return nibbles; }
};

INLINE Chunk looked_up(const void *table, Chunk nibbles) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i *>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), nibbles);
}
template <> struct Nibbles<DecodeIQ4_NL> {
    static INLINE Chunk four(const uint8_t *g, int c) { return packed4<2, 18>(g + 72 * c); }
    static INLINE Chunk codes(Chunk nibbles) { return looked_up(DecodeIQ4_NL::values, nibbles); }
};
template <> struct Nibbles<DecodeIQ4_XS> {
    static INLINE Chunk four(const uint8_t *g, int c) {  // without a gap
        return _mm512_loadu_si512(g + 8 + 64 * c);
    }
    static INLINE Chunk codes(Chunk nibbles) { return looked_up(DecodeIQ4_NL::values, nibbles); }
};
template <> struct Nibbles<DecodeMXFP4> {
    static INLINE Chunk four(const uint8_t *g, int c) { return packed4<1, 17>(g + 68 * c); }
    static INLINE Chunk codes(Chunk nibbles) { return looked_up(kFp4Levels, nibbles); }
};

template <class D> INLINE Chunk low(Chunk both) {
    const Chunk nibbles = _mm512_and_si512(both, _mm512_set1_epi8(15));
    return as_unsigned<D::kSigned>(Nibbles<D>::codes(nibbles));
}
template <class D> INLINE Chunk high(Chunk both) { return low<D>(_mm512_srli_epi16(both, 4)); }

template <class D>
    requires requires(const uint8_t *g) { Nibbles<D>::four(g, 0); }
struct Steps<D> {
    static constexpr int N = 2, kBlocks = 4, kBiasLeft = 0;
    typedef LowAndHigh Codes;
    struct Input {
        Chunk low, high, start;  // start: -bias * (sum of a lane's activations)
    };

    static INLINE Codes codes(const uint8_t *g, int c) {
        const Chunk both = Nibbles<D>::four(g, c);
        return {low<D>(both), high<D>(both)};
    }
    static INLINE Input input(const Token &x, int64_t block) {
        const int8_t *q = x.q + 32 * block;
        const Chunk first = _mm512_loadu_si512(q), second = _mm512_loadu_si512(q + 64);
        const Chunk low = _mm512_shuffle_i64x2(first, second, 0x88),
                    high = _mm512_shuffle_i64x2(first, second, 0xdd);
        const Chunk bias = _mm512_set1_epi8(int8_t(kBias<D>)), zero = _mm512_setzero_si512();
        const Chunk sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, bias, low), bias, high);
        return {low, high, _mm512_sub_epi32(zero, sum)};
    }
    static INLINE F add(F total, const Codes &codes, const Input &x, const F8 *scale, int c) {
        const __m512i low = _mm512_dpbusd_epi32(x.start, codes.low, x.low);
        const I dot = (I)_mm512_dpbusd_epi32(low, codes.high, x.high);
        const __m512i block = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        const __m512i order = _mm512_add_epi32(block, _mm512_set1_epi32(4 * c));
        return total + to_float(dot) * (F)_mm512_permutexvar_ps(
                                           order, _mm512_castps256_ps512((__m256)scale[0]));
    }
};

}  // namespace
