// Rows of more than one group, a group at once: the eight registers of words256.hpp all add to the
// same sums, so that 256 codes cost one conversion to float and one product with scales for each
// token, where a block at a time takes eight. The codes come to their places once for all tokens.
// Without VNNI products of small codes stay in int16 while they fit, and are widened once.
#pragma once

#include "runtime/native/isa/x86/words256.hpp"

namespace {

template <class D> struct InWords : D {};
// Codes of both signs that are small: without a sign they stay in int16.
template <> struct InWords<DecodeMXFP4> : DecodeMXFP4 {
    static constexpr int kZero = 12, kLargest = 24;
    static constexpr bool kSigned = false;
};

// total + the products of N registers from kFirst on.
template <class D, int kFirst, int N>
INLINE I dot_words(I total, const Words &codes, const Words &x) {
    const auto code = [&](int i) { return (B32)codes.words[i]; };
#if defined(__AVXVNNI__)
    I odd{};  // two sums, so that products wait less for each other
#pragma GCC unroll 4
    for (int i = kFirst; i < kFirst + N; i += 2) {
        total = dot4<false>(total, code(i), (B32)x.words[i]);
        odd = dot4<false>(odd, code(i + 1), (B32)x.words[i + 1]);
    }
    return total + odd;
#else
    constexpr int kHeld = D::kSigned ? 1 : held_pairs(D::kLargest, N);
#pragma GCC unroll 8
    for (int i = kFirst; i < kFirst + N; i += kHeld) {
        if constexpr (kHeld == 1) total = dot4<D::kSigned>(total, code(i), (B32)x.words[i]);
        else {
            __m256i pairs = _mm256_maddubs_epi16(code(i), (B32)x.words[i]);
#pragma GCC unroll 8
            for (int j = i + 1; j < i + kHeld; ++j)
                pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(code(j), (B32)x.words[j]));
            total += widened(pairs);
        }
    }
    return total;
#endif
}

// The first and the second halves of eight blocks, which alternate in `halves`.
template <class V> INLINE void part_halves(const V (&halves)[2], V &first, V &second) {
    first = __builtin_shufflevector(halves[0], halves[1], 0, 2, 4, 6, 8, 10, 12, 14);
    second = __builtin_shufflevector(halves[0], halves[1], 1, 3, 5, 7, 9, 11, 13, 15);
}

template <class Format> struct Steps<InWords<Format>> {
    typedef InWords<Format> D;
    static constexpr int N = 1, kBlocks = 8, kBiasLeft = 0, kParts = D::kHalves ? 2 : 1;
    typedef Words Codes;
    struct Input {
        Words x;
        I start[kParts];  // -bias * (sum of a block's activations, or of half a block's)
    };

    static INLINE Codes codes(const uint8_t *g, int) {
        Words words = group_words<Format>(g);
#pragma GCC unroll 8
        for (I &word : words.words) word = (I)as_unsigned<D::kSigned>((B32)word);
        return words;
    }
    static INLINE Input input(const Token &x, int64_t block) {
        Input made;
        made.x = transposed(reinterpret_cast<const uint8_t *>(x.q + 32 * block), 32);
        if constexpr (D::kHalves) {
            const I sums[2] = {load<I>(x.sum16 + 2 * block), load<I>(x.sum16 + 2 * block + 8)};
            part_halves(sums, made.start[0], made.start[1]);
        } else made.start[0] = load<I>(x.sum32 + block);
        for (I &start : made.start) start *= -kBias<D>;
        return made;
    }
    static INLINE F add(F total, const Codes &codes, const Input &x, const F8 (&scale)[2], int) {
        if constexpr (!D::kHalves)
            return total + to_float(dot_words<D, 0, 8>(x.start[0], codes, x.x)) * scale[0];
        F first, second;
        part_halves(scale, first, second);
        total += to_float(dot_words<D, 0, 4>(x.start[0], codes, x.x)) * first;
        return total + to_float(dot_words<D, 4, 4>(x.start[D::kHalves], codes, x.x)) * second;
    }
};

#define SPRAT_IN_WORDS(format)            \
    template <> struct LongRows<format> { \
        typedef InWords<format> Decoder;  \
    }
SPRAT_IN_WORDS(DecodeQ4_0);
SPRAT_IN_WORDS(DecodeQ4_1);
SPRAT_IN_WORDS(DecodeQ5_0);
SPRAT_IN_WORDS(DecodeQ5_1);
SPRAT_IN_WORDS(DecodeQ8_0);
SPRAT_IN_WORDS(DecodeIQ4_NL);
SPRAT_IN_WORDS(DecodeIQ4_XS);
SPRAT_IN_WORDS(DecodeMXFP4);
SPRAT_IN_WORDS(DecodeQ4_K);
SPRAT_IN_WORDS(DecodeQ5_K);
SPRAT_IN_WORDS(DecodeQ3_K);
SPRAT_IN_WORDS(DecodeQ2_K);
#undef SPRAT_IN_WORDS

}  // namespace
