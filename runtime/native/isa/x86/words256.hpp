// The codes of a group in eight registers of AVX2, each with four codes of every block:
//
//   words[0]   | block 0: codes 0-3   | block 1: codes 0-3   | ... | block 7: codes 0-3   |
//   words[1]   | block 0: codes 4-7   | block 1: codes 4-7   | ... | block 7: codes 4-7   |
//   ...
//
// Bytes come to their places before they are taken apart: half as many of nibbles, a quarter of
// pairs of bits.
#pragma once

namespace {

struct Words {
    I words[8];
};

// 32 bytes of each of eight blocks, `apart` bytes apart.
INLINE Words transposed(const uint8_t *first, int64_t apart) {
    Words out;
    transpose4x4(first, apart, out.words);
    transpose4x4(first + 16, apart, out.words + 4);
    return out;
}

INLINE B32 in_every_word(uint32_t word) { return _mm256_set1_epi32(int(word)); }

// `value` where the bits of `mask` are set.
INLINE B32 where_set(B32 bits, B32 mask, int value) {
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bits, mask), mask),
                            _mm256_set1_epi8(int8_t(value)));
}

// ---- Blocks that keep their own 16 bytes of nibbles ----

// Where they lie, and what a nibble stands for.
template <class D> struct Nibbles {};

template <int kAtByte, int kBytesApart> struct NibblesAt {
    static constexpr int kAt = kAtByte, kApart = kBytesApart;
    static INLINE B32 codes(B32 nibbles) { return nibbles; }
};
template <> struct Nibbles<DecodeQ4_0> : NibblesAt<2, 18> {};
template <> struct Nibbles<DecodeQ4_1> : NibblesAt<4, 20> {};
template <> struct Nibbles<DecodeQ5_0> : NibblesAt<6, 22> {};
template <> struct Nibbles<DecodeQ5_1> : NibblesAt<8, 24> {};
template <> struct Nibbles<DecodeIQ4_NL> : NibblesAt<2, 18> {
    static INLINE B32 codes(B32 nibbles) { return shuffle(nibbles, DecodeIQ4_NL::values); }
};
template <> struct Nibbles<DecodeIQ4_XS> : NibblesAt<8, 16> {
    static INLINE B32 codes(B32 nibbles) { return shuffle(nibbles, DecodeIQ4_NL::values); }
};
template <> struct Nibbles<DecodeMXFP4> : NibblesAt<1, 17> {
    static constexpr int8_t levels[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                          12, 11, 10, 9,  8,  6,  4,  0};
    static INLINE B32 codes(B32 nibbles) { return shuffle(nibbles, levels); }
};

template <class D> INLINE Words words_of_nibbles(const uint8_t *g) {
    Words out;
    I both[4];
    transpose4x4(g + Nibbles<D>::kAt, Nibbles<D>::kApart, both);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        out.words[i] = (I)Nibbles<D>::codes(low4((B32)both[i]));
        out.words[4 + i] = (I)Nibbles<D>::codes(high4((B32)both[i]));
    }
    return out;
}

// The fifth bits of blocks that keep theirs in 32 bits before their nibbles.
template <class D> INLINE void add_fifth_bits(const uint8_t *g, Words &words) {
    I bits;
#pragma GCC unroll 8
    for (int b = 0; b < 8; ++b)
        bits[b] = load<int32_t>(g + b * D::block_bytes + Nibbles<D>::kAt - 4);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
        const B32 byte = _mm256_add_epi8(_mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0,
                                                           0x04040404, 0x08080808, 0x0c0c0c0c),
                                         _mm256_set1_epi8(int8_t(j / 2)));
        const B32 spread = _mm256_shuffle_epi8((B32)bits, byte);
        words.words[j] |= (I)where_set(spread, in_every_word(j % 2 ? 0x80402010 : 0x08040201), 16);
    }
}

// ---- Super-blocks, whose blocks share bytes ----

// Word j of four times 32 bytes, and word 4 + j of them, in the halves of out[j].
INLINE void transpose_quads(const uint8_t *in, B32 *out) {
    const B32 a = load32(in), b = load32(in + 32), c = load32(in + 64), d = load32(in + 96);
    const B32 ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
    const B32 ab_high = _mm256_unpackhi_epi32(a, b), cd_high = _mm256_unpackhi_epi32(c, d);
    out[0] = _mm256_unpacklo_epi64(ab, cd), out[1] = _mm256_unpackhi_epi64(ab, cd);
    out[2] = _mm256_unpacklo_epi64(ab_high, cd_high);
    out[3] = _mm256_unpackhi_epi64(ab_high, cd_high);
}

// Nibbles of four times 32 bytes: two blocks share each 32.
INLINE Words words_of_quads(const uint8_t *in) {
    B32 both[4];
    Words out;
    transpose_quads(in, both);
    const I pairs = {0, 0, 1, 1, 2, 2, 3, 3};
    const B32 shift = _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
        const B32 bytes = _mm256_permutevar8x32_epi32(both[j % 4], (B32)(pairs + j / 4 * 4));
        out.words[j] = (I)low4(_mm256_srlv_epi32(bytes, shift));
    }
    return out;
}

// Two bits of two times 32 bytes: four blocks share each 32.
INLINE Words words_of_pairs(const uint8_t *in) {
    const B32 first = load32(in), second = load32(in + 32);
    const B32 halves[2] = {_mm256_permute2x128_si256(first, second, 0x20),
                           _mm256_permute2x128_si256(first, second, 0x31)};
    const B32 shift = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    Words out;
    const auto word = [&](B32 bytes) {
        return (I)_mm256_and_si256(_mm256_srlv_epi32(bytes, shift), _mm256_set1_epi8(3));
    };
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
        out.words[4 * h] = word(_mm256_shuffle_epi32(halves[h], 0x00));
        out.words[4 * h + 1] = word(_mm256_shuffle_epi32(halves[h], 0x55));
        out.words[4 * h + 2] = word(_mm256_shuffle_epi32(halves[h], 0xaa));
        out.words[4 * h + 3] = word(_mm256_shuffle_epi32(halves[h], 0xff));
    }
    return out;
}

// `value` where block b of 32 bytes that all blocks share has bit b.
INLINE void add_shared_bits(const uint8_t *in, int value, Words &words) {
    const I mask = (I{} + 0x01010101) << I{0, 1, 2, 3, 4, 5, 6, 7};
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j)
        words.words[j] |= (I)where_set(in_every_word(load<uint32_t>(in + 4 * j)), (B32)mask, value);
}

// ---- Each format ----

template <class D> INLINE Words group_words(const uint8_t *g) {
    static_assert(requires { Nibbles<D>::kAt; });
    return words_of_nibbles<D>(g);
}
template <> INLINE Words group_words<DecodeQ5_0>(const uint8_t *g) {
    Words words = words_of_nibbles<DecodeQ5_0>(g);
    add_fifth_bits<DecodeQ5_0>(g, words);
    return words;
}
template <> INLINE Words group_words<DecodeQ5_1>(const uint8_t *g) {
    Words words = words_of_nibbles<DecodeQ5_1>(g);
    add_fifth_bits<DecodeQ5_1>(g, words);
    return words;
}
template <> INLINE Words group_words<DecodeQ8_0>(const uint8_t *g) {
    return transposed(g + 2, DecodeQ8_0::block_bytes);
}
template <> INLINE Words group_words<DecodeQ4_K>(const uint8_t *g) {
    return words_of_quads(g + 16);
}
template <> INLINE Words group_words<DecodeQ5_K>(const uint8_t *g) {
    Words words = words_of_quads(g + 48);
    add_shared_bits(g + 16, 16, words);
    return words;
}
template <> INLINE Words group_words<DecodeQ3_K>(const uint8_t *g) {
    Words words = words_of_pairs(g + 32);
    add_shared_bits(g, 4, words);
    return words;
}
template <> INLINE Words group_words<DecodeQ2_K>(const uint8_t *g) {
    return words_of_pairs(g + 16);
}

}  // namespace
