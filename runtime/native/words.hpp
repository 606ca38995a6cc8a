// What the products of attention multiply: 32-bit words of one float32, or of two int16 that one instruction multiplies
// and adds. Both are used alike: rows are packed to words with a scale each, and a product's totals times the scales of
// both its factors are its numbers.
#pragma once

namespace {

// 2047 and code_limit(k) are the largest codes of a product's factors, so that k products fit into 31 bits. For the
// longest rows, 576 numbers, both have about 11 bits: as many as binary16.
constexpr float CODE_LIMIT = 2047;
INLINE float code_limit(int k) {
    const float limit = 2147480000.0f / (CODE_LIMIT * float(k));
    return limit < 32767.0f ? limit : 32767.0f;
}

struct FloatWords {
    typedef float Word;
    typedef F V;
    static constexpr int NUMBERS = 1;  // of a word

    static INLINE F dot(F total, F a, F b) { return total + a * b; }
    static INLINE F number(F total) { return total; }
    static INLINE F pack(const F *x) { return x[0]; }
    static INLINE float scale(const float *, int, float) { return 1; }
    static INLINE F scale(F, float) { return all(1); }
    static INLINE F across(const float *const *rows, int column) { return load<F>(rows[0] + column); }
};

// Twice as fast as float32 where an instruction adds two products of int16.
struct PairWords {
    typedef int32_t Word;
    typedef I V;
    static constexpr int NUMBERS = 2;

    // The low half of each word of one, the high half of the other's.
    static INLINE I halves(I low, I high) {
        typedef int16_t Half __attribute__((vector_size(4 * LANES)));
        const Half upper = (Half)(I{} + int32_t(0xffff0000));
        return (I)(upper ? (Half)high : (Half)low);
    }
    static INLINE I dot(I total, I a, I b) { return dot2(total, a, b); }
    static INLINE F number(I total) { return to_float(total); }
    static INLINE I pack(const F *x) {
        const F magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, and leaves it in the low bits
        return halves((I)(x[0] + magic), (I)(x[1] + magic) << 16);
    }
    // Of codes up to `limit` for x[0 .. n). By the bits, as of integers: so that infinity and NaN stay what they are.
    static INLINE float scale(const float *x, int n, float limit) {
        I largest{};
        for (int i = 0; i < n; i += LANES) {
            const I size = load<I>(x + i) & 0x7fffffff;
            largest = size > largest ? size : largest;
        }
        const int32_t bits = largest_lane(largest);
        float size;
        std::memcpy(&size, &bits, 4);
        return size / limit;
    }
    static INLINE F scale(F largest, float limit) { return largest / limit; }
    // Of two packed rows the numbers of LANES columns, a word to each column.
    static INLINE I across(const int32_t *const *rows, int column) {
        const int at = column / (2 * LANES) * LANES;
        const I a = load<I>(rows[0] + at), b = load<I>(rows[1] + at);
        return column / LANES % 2 ? halves(a >> 16, b) : halves(a, b << 16);
    }
};

INLINE float inverse_of(float scale) { return scale > 1e-30f ? 1.0f / scale : 0.0f; }

// x[0 .. n) as words; returns their scale. n is a multiple of LANES * NUMBERS. Numbers LANES apart share a word.
template <class W> INLINE float pack_row(const float *x, int n, float limit, typename W::Word *out) {
    const float scale = W::scale(x, n, limit), inverse = inverse_of(scale);
    for (int i = 0; i < n; i += LANES * W::NUMBERS, out += LANES) {
        F numbers[W::NUMBERS];
        for (int j = 0; j < W::NUMBERS; ++j) numbers[j] = load<F>(x + i + j * LANES) * inverse;
        store(out, W::pack(numbers));
    }
    return scale;
}

}  // namespace
