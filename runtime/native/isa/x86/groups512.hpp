// Rows of many groups, a group at once: 256 codes in four registers, each with an equal share of
// every block, so that all four add to the same sums:
//
//   words[0]   | block 0: codes 0-7   | block 1: codes 0-7   | ... | block 7: codes 0-7   |
//   words[1]   | block 0: codes 8-15  | block 1: codes 8-15  | ... | block 7: codes 8-15  |
//   ...
//
// So 256 codes cost one conversion to float and one product with scales for each token, where
// quads512.hpp takes two and pairs of blocks take four. The codes come to their places once for all
// tokens, nibbles with two permutations, bytes with eight. Short rows are in cache, and one token
// takes up to a tenth longer with those; long rows come from memory.
#pragma once

namespace {

template <class D> struct InWords : D {
    typedef D Format;
};

struct Words {
    Chunk words[4];
};

// Of four registers of two blocks each.
INLINE Words as_words(const Chunk (&in)[4]) {
    const Chunk first = _mm512_setr_epi64(0, 4, 8, 12, 1, 5, 9, 13),
                second = _mm512_setr_epi64(2, 6, 10, 14, 3, 7, 11, 15);
    const Chunk a = _mm512_permutex2var_epi64(in[0], first, in[1]),
                b = _mm512_permutex2var_epi64(in[2], first, in[3]);
    const Chunk c = _mm512_permutex2var_epi64(in[0], second, in[1]),
                d = _mm512_permutex2var_epi64(in[2], second, in[3]);
    return {{_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee),
             _mm512_shuffle_i64x2(c, d, 0x44), _mm512_shuffle_i64x2(c, d, 0xee)}};
}

template <class D> INLINE Words group_words(const uint8_t *g) {
    if constexpr (requires { Nibbles<D>::four(g, 0); }) {
        const Chunk a = Nibbles<D>::four(g, 0), b = Nibbles<D>::four(g, 1);
        const Chunk even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14),
                    odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
        const Chunk first = _mm512_permutex2var_epi64(a, even, b),
                    second = _mm512_permutex2var_epi64(a, odd, b);
        return {{low<D>(first), low<D>(second), high<D>(first), high<D>(second)}};
    } else {
        Chunk pairs[4];
        for (int c = 0; c < 4; ++c) pairs[c] = as_unsigned<D::kSigned>(chunk<D>(g, c));
        return as_words(pairs);
    }
}

template <class D> struct Steps<InWords<D>> {
    static constexpr int N = 1, kBlocks = 8, kBiasLeft = 0;
    typedef Words Codes;
    struct Input {
        Words x;
        Chunk start;  // -bias * (sum of a lane's activations)
    };

    static INLINE Codes codes(const uint8_t *g, int) { return group_words<D>(g); }
    static INLINE Input input(const Token &x, int64_t block) {
        Chunk pairs[4], sum = _mm512_setzero_si512();
        for (int i = 0; i < 4; ++i) pairs[i] = _mm512_loadu_si512(x.q + 32 * block + 64 * i);
        const Words all = as_words(pairs);
        const Chunk bias = _mm512_set1_epi8(int8_t(kBias<D>));
        for (const Chunk &words : all.words) sum = _mm512_dpbusd_epi32(sum, bias, words);
        return {all, _mm512_sub_epi32(_mm512_setzero_si512(), sum)};
    }
    static INLINE F add(F total, const Codes &codes, const Input &x, const F8 *scale, int) {
        Chunk dot = x.start;
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) dot = _mm512_dpbusd_epi32(dot, codes.words[i], x.x.words[i]);
        const __m512i block = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        return total + to_float((I)dot) * (F)_mm512_permutexvar_ps(
                                              block, _mm512_castps256_ps512((__m256)scale[0]));
    }
};

#define SPRAT_IN_WORDS(format)               \
    template <> struct LongRows<format> {    \
        typedef InWords<format> Decoder;     \
    }
SPRAT_IN_WORDS(DecodeQ4_0);
SPRAT_IN_WORDS(DecodeIQ4_NL);
SPRAT_IN_WORDS(DecodeIQ4_XS);
SPRAT_IN_WORDS(DecodeMXFP4);
SPRAT_IN_WORDS(DecodeQ8_0);
#undef SPRAT_IN_WORDS

}  // namespace
