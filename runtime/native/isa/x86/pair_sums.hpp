// How AVX2 alone adds up products of bytes: vpmaddubsw adds them in pairs of int16, where those of
// small codes stay while they fit, before vpmaddwd widens them to int32.
#pragma once

namespace {

// Of unsigned codes up to `largest` and activations up to 127, the products in pairs that fit: a
// power of two, at most `n`.
constexpr int held_pairs(int largest, int n) {
    const int fit = 32767 / (2 * 127 * largest), held = fit < 2 ? 1 : fit < 4 ? 2 : fit < 8 ? 4 : 8;
    return held < n ? held : n;
}

INLINE I widened(__m256i pairs) { return (I)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

// A block in a tile of gemm/gemm.hpp.
template <bool kSigned, int kHeld> struct PairSums {
    struct Sum {
        __m256i pairs;
        I wide;
    };

    static INLINE Sum begin(I start) { return {__m256i(), start}; }
    // `step` is a constant wherever this is inlined.
    static INLINE void add(Sum &sum, int step, const uint8_t *codes, I x) {
        if constexpr (kSigned) sum.wide = dot4<true>(sum.wide, load32(codes), (B32)x);
        else {
            const __m256i products = _mm256_maddubs_epi16(load32(codes), (B32)x);
            sum.pairs = step % kHeld ? _mm256_add_epi16(sum.pairs, products) : products;
            // In this order: GCC makes a tree of such additions, which fills all registers.
            __asm__("" : "+x"(sum.pairs));
            if (step % kHeld == kHeld - 1) sum.wide += widened(sum.pairs);
        }
    }
    static INLINE I total(const Sum &sum, I) { return sum.wide; }
};

// Of a decoder. Compiled for each kind of codes, of which there are fewer than decoders.
template <class D>
using PanelSums =
    PairSums<D::kSigned, D::kSigned ? 1 : held_pairs(D::kLargest, D::kHalves ? 4 : 8)>;

}  // namespace
