// The operands of attention's products: 32-bit words of one float32, or of a pair of int16 that one
// instruction multiplies and adds. Both have the same interface: a row is packed to words with a
// scale, and the sums of a product times the scales of both its factors are its values.
//
//   F32Operand       word i of a row:  x[i]
//   I16PairOperand   word i of a row:  q[j + kLanes] << 16 | q[j] & 0xffff,   x ~ scale * q
//                                      for the i-th j of 0 .. kLanes-1, 2 kLanes .. 3 kLanes-1, ...
//
// Elements kLanes apart share a word, so that packing needs no shuffle.
#pragma once

#include <type_traits>

namespace {

// A product of k pairs of codes must fit into 31 bits. Cached rows have codes up to kCodeLimit, the
// other factor up to code_limit(k). For the longest rows, 576 elements, code_limit is 1821: both
// factors have about 11 bits, as many as the significand of binary16.
constexpr float kCodeLimit = 2047;
INLINE float code_limit(int k) {
    const float limit = 2147480000.0f / (kCodeLimit * float(k));
    return limit < 32767.0f ? limit : 32767.0f;
}

struct F32Operand {
    typedef float Word;
    typedef F V;
    static constexpr int kPerWord = 1;  // elements of a word

    static INLINE F dot(F total, F a, F b) { return total + a * b; }
    static INLINE F value(F total) { return total; }
    static INLINE F pack(const F *x) { return x[0]; }
    static INLINE float scale(const float *, int, float) { return 1; }
    static INLINE F scale(F, float) { return broadcast(1); }
    static INLINE F transpose(const float *const *rows, int column) {
        return load<F>(rows[0] + column);
    }
};

// Twice as fast as float32 where an instruction adds two products of int16.
struct I16PairOperand {
    typedef int32_t Word;
    typedef I V;
    static constexpr int kPerWord = 2;

    // The low half of each word of one, the high half of the other's.
    static INLINE I halves(I low, I high) {
        typedef int16_t Half __attribute__((vector_size(4 * kLanes)));
        const Half upper = (Half)(I{} + int32_t(0xffff0000));
        return (I)(upper ? (Half)high : (Half)low);
    }
    static INLINE I dot(I total, I a, I b) { return dot2_i16(total, a, b); }
    static INLINE F value(I total) { return to_float(total); }
    static INLINE I pack(const F *x) {
        const F magic = broadcast(kRoundMagic);
        return halves((I)(x[0] + magic), (I)(x[1] + magic) << 16);
    }
    // Scale of codes up to `limit` for x[0 .. n). Compared by bits, as integers, so that infinity
    // and NaN count as the largest and make the result NaN.
    static INLINE float scale(const float *x, int n, float limit) {
        I largest{};
        for (int i = 0; i < n; i += kLanes) {
            const I size = load<I>(x + i) & 0x7fffffff;
            largest = size > largest ? size : largest;
        }
        const int32_t bits = reduce_max(largest);
        float size;
        std::memcpy(&size, &bits, 4);
        return size / limit;
    }
    static INLINE F scale(F largest, float limit) { return largest / limit; }
    // From two packed rows, the words of kLanes columns: in each word one element of either row.
    static INLINE I transpose(const int32_t *const *rows, int column) {
        const int at = column / (2 * kLanes) * kLanes;
        const I a = load<I>(rows[0] + at), b = load<I>(rows[1] + at);
        return column / kLanes % 2 ? halves(a >> 16, b) : halves(a, b << 16);
    }
};

// Operand type of float16 and int8 KV entries.
using EntryOperand = std::conditional_t<kPairProducts, I16PairOperand, F32Operand>;

INLINE float inverse_of(float scale) { return scale > 1e-30f ? 1.0f / scale : 0.0f; }

// x[0 .. n) as words; returns their scale. n is a multiple of kLanes * kPerWord.
template <class W>
INLINE float pack_row(const float *x, int n, float limit, typename W::Word *out) {
    const float scale = W::scale(x, n, limit), inverse = inverse_of(scale);
    for (int i = 0; i < n; i += kLanes * W::kPerWord, out += kLanes) {
        F elements[W::kPerWord];
        for (int j = 0; j < W::kPerWord; ++j) elements[j] = load<F>(x + i + j * kLanes) * inverse;
        store(out, W::pack(elements));
    }
    return scale;
}

}  // namespace
