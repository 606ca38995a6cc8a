// 64 codes at once: blocks 2c and 2c + 1 of a group, where AVX-512 has a shorter way than joining
// two of 32.
#pragma once

namespace {

// Shifts right by A bits in the lower half and by B in the upper one; the caller masks off the bits
// that cross from byte to byte.
template <int A, int B> INLINE Chunk shifted(Chunk v) {
    return _mm512_srlv_epi64(v, _mm512_setr_epi64(A, A, A, A, B, B, B, B));
}
INLINE Chunk masked(Chunk v, int mask) {
    return _mm512_and_si512(v, _mm512_set1_epi8(int8_t(mask)));
}

INLINE Chunk load64(const uint8_t *p) { return _mm512_loadu_si512(p); }
INLINE Chunk load32_twice(const uint8_t *p) { return _mm512_broadcast_i64x4(load32(p)); }

// Codes that keep their fifth bits in two words of 32.
INLINE Chunk with_fifth_bits(Chunk nibbles, const uint8_t *first, const uint8_t *second) {
    const uint64_t bits = uint64_t(load<uint32_t>(second)) << 32 | load<uint32_t>(first);
    return _mm512_or_si512(nibbles, _mm512_maskz_set1_epi8(bits, 16));
}

template <> struct Pair<DecodeQ4_0> {
    static INLINE Chunk codes(const uint8_t *g, int c) { return nibbles2<2, 18>(g + 36 * c); }
};
template <> struct Pair<DecodeQ4_1> {
    static INLINE Chunk codes(const uint8_t *g, int c) { return nibbles2<4, 20>(g + 40 * c); }
};
template <> struct Pair<DecodeQ5_0> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        return with_fifth_bits(nibbles2<6, 22>(g + 44 * c), g + 44 * c + 2, g + 44 * c + 24);
    }
};
template <> struct Pair<DecodeQ5_1> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        return with_fifth_bits(nibbles2<8, 24>(g + 48 * c), g + 48 * c + 4, g + 48 * c + 28);
    }
};
template <> struct Pair<DecodeIQ4_NL> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        const __m128i values =
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(DecodeIQ4_NL::values));
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), nibbles2<2, 18>(g + 36 * c));
    }
};
template <> struct Pair<DecodeQ4_K> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        return masked(shifted<0, 4>(load32_twice(g + 16 + 32 * c)), 15);
    }
};
template <> struct Pair<DecodeQ5_K> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        const Chunk upper =
            _mm512_srl_epi64(shifted<0, 1>(load32_twice(g + 16)), _mm_cvtsi32_si128(2 * c));
        const Chunk nibbles = masked(shifted<0, 4>(load32_twice(g + 48 + 32 * c)), 15);
        return _mm512_or_si512(nibbles, _mm512_slli_epi64(masked(upper, 1), 4));
    }
};
template <> struct Pair<DecodeQ6_K> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        const __m128i shift = _mm_cvtsi32_si128(c % 2 * 4);
        const Chunk upper =
            _mm512_srl_epi64(shifted<0, 2>(load32_twice(g + 128 + c / 2 * 32)), shift);
        const Chunk nibbles = masked(_mm512_srl_epi64(load64(g + c / 2 * 64), shift), 15);
        return _mm512_or_si512(nibbles, _mm512_slli_epi64(masked(upper, 3), 4));
    }
};

template <> struct Pair<DecodeIQ4_XS> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        const __m128i values =
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(DecodeIQ4_NL::values));
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), nibbles2<0, 16>(g + 8 + 32 * c));
    }
};
template <> struct Pair<DecodeMXFP4> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i *>(kFp4Levels));
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), nibbles2<1, 17>(g + 34 * c));
    }
};
// Pairs of bits 2c and 2c + 1 of the 32 bytes of a half.
INLINE Chunk pairs_of_half(const uint8_t *qs, int c) {
    const Chunk both = shifted<0, 2>(load32_twice(qs + c / 2 * 32));
    return masked(_mm512_srl_epi64(both, _mm_cvtsi32_si128(c % 2 * 4)), 3);
}
template <> struct Pair<DecodeQ3_K> {
    static INLINE Chunk codes(const uint8_t *g, int c) {
        const Chunk upper =
            _mm512_srl_epi64(shifted<0, 1>(load32_twice(g)), _mm_cvtsi32_si128(2 * c));
        return _mm512_or_si512(pairs_of_half(g + 32, c), _mm512_slli_epi64(masked(upper, 1), 2));
    }
};
template <> struct Pair<DecodeQ2_K> {
    static INLINE Chunk codes(const uint8_t *g, int c) { return pairs_of_half(g + 16, c); }
};
template <> struct Pair<DecodeQ2_0> {
    static INLINE Chunk codes(const uint8_t *g, int c) {  // spread_pairs, 16 bytes at once
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(g + 18 * c + 2));
        const Chunk one = _mm512_cvtepu8_epi32(bytes);
        const Chunk two = _mm512_or_si512(one, _mm512_slli_epi32(one, 6));
        return masked(_mm512_or_si512(two, _mm512_slli_epi32(two, 12)), 3);
    }
};

}  // namespace
