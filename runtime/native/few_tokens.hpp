// Products with few tokens: rows stream past once, and every token takes its dot product from the codes in registers.
//
// FEW_ROWS rows at a time, as far apart as the piece allows: where one stream of reads per thread gets 20 GB/s, four
// that lie in different pages get 32. Eight blocks' scales are converted, multiplied and folded together: one by one
// they cost as much as the codes.
#pragma once

#include <type_traits>

#include "runtime/native/activations.hpp"
#include "runtime/native/sums.hpp"

namespace {

using sprat::Product;

constexpr int AHEAD = 1024;  // bytes: 5 to 10 % faster than without, and no slower than 2048

template <class D> constexpr int BIAS = D::bias + (D::is_signed ? SIGNED_BIAS : 0);
template <class D> constexpr int N_SCALES = D::halves ? 16 : 8;

// How codes meet activations: in N steps per group, each with BLOCKS blocks. BIAS_LEFT is what a step leaves of the bias.
template <class D> struct Steps {
    static constexpr int N = 8 / CHUNK_BLOCKS, BLOCKS = CHUNK_BLOCKS, BIAS_LEFT = BIAS<D>;
    typedef Chunk Codes;
    typedef const int8_t *Input;

    static INLINE Codes codes(const uint8_t *g, int c) { return chunk<D>(g, c); }
    static INLINE Input input(const int8_t *q) { return q; }
    static INLINE F add(F total, const Codes &codes, Input x, const F8 *scale, int c) {
        return step<D::is_signed, D::halves>(total, codes, x, scale, c);
    }
};

}  // namespace

#if defined(__AVX512VBMI__)
#include "runtime/native/isa/quads512.hpp"
#endif

namespace {

// What bias and minimum add to the dot product: -bias * (sum of scale * q) + sum of min * q.
template <int BIAS_OF> struct Folded {
    F8 biased{}, least{};

    INLINE F8 of_blocks() const { return least + biased * float(-BIAS_OF); }
};

INLINE F8 integers(const int32_t *q) { return to_float8(load<I8>(q)); }

// Scales of a row's group times those of a token's activations.
template <class D>
INLINE void fold(const F8 *scale, F8 min, const Token &x, int64_t block, F8 *product, Folded<Steps<D>::BIAS_LEFT> &folded) {
    const F8 d = load<F8>(x.d + block);
    if constexpr (D::halves) {
        product[0] = scale[0] * __builtin_shufflevector(d, d, 0, 0, 1, 1, 2, 2, 3, 3);
        product[1] = scale[1] * __builtin_shufflevector(d, d, 4, 4, 5, 5, 6, 6, 7, 7);
        folded.biased += integers(x.sum16 + 2 * block) * product[0] + integers(x.sum16 + 2 * block + 8) * product[1];
    } else {
        product[0] = scale[0] * d;
        if constexpr (Steps<D>::BIAS_LEFT != 0) folded.biased += integers(x.sum32 + block) * product[0];
        if constexpr (D::has_min) folded.least += integers(x.sum32 + block) * d * min;
    }
}

// A token's activations for the first N steps of a group, in the form that these want: once for all rows.
template <class D, int N> struct Inputs {
    typename Steps<D>::Input at[N];

    INLINE void take(const int8_t *q) {
#pragma GCC unroll 8
        for (int c = 0; c < N; ++c) at[c] = Steps<D>::input(q + 32 * Steps<D>::BLOCKS * c);
    }
};

// Adds the first N steps of one group of a row, for T tokens.
template <class D, int T, int N>
INLINE void add_group(F (&dot)[T], Folded<Steps<D>::BIAS_LEFT> (&folded)[T], const uint8_t *g, const Token (&x)[T],
                      const Inputs<D, N> (&q)[T], int64_t block) {
    F8 scale[2], min{}, product[T][2];
    D::scale(g, scale);
    if constexpr (D::has_min) min = D::min(g);
    for (int t = 0; t < T; ++t) fold<D>(scale, min, x[t], block, product[t], folded[t]);
#pragma GCC unroll 8
    for (int c = 0; c < N; ++c) {
        const auto codes = Steps<D>::codes(g, c);
        for (int t = 0; t < T; ++t) dot[t] = Steps<D>::add(dot[t], codes, q[t].at[c], product[t], c);
    }
}

// Decoders read whole groups. Behind a row that ends within one lies the next row, which meets zeros or is not used;
// behind the last row may lie nothing, so that its end is copied.
template <class D> INLINE const uint8_t *whole_group(const Product &p, const uint8_t *g, size_t rest, uint8_t *copy) {
    if (g + D::group_bytes <= p.weights + p.n_rows * p.row_bytes) return g;
    std::memset(copy, 0, D::group_bytes);
    std::memcpy(copy, g, rest);
    return copy;
}

INLINE const uint8_t *row_of(const Product &p, int row) { return p.weights + least(row, p.n_rows - 1) * p.row_bytes; }

// Of rows `row`, `row + apart`, ...; where there is none, the last row's once more.
template <class D, int T> struct Sums {
    F dot[FEW_ROWS][T] = {};
    Folded<Steps<D>::BIAS_LEFT> folded[FEW_ROWS][T];

    INLINE void store_for(const Product &p, int row, int apart, int first) const {
        for (int t = 0; t < T; ++t) {
            F column[FEW_ROWS];
            float sums[FEW_ROWS], *out = p.out + (first + t) * p.out_stride;
#pragma GCC unroll 4
            for (int r = 0; r < FEW_ROWS; ++r) column[r] = dot[r][t] + in_lanes(folded[r][t].of_blocks());
            sum_rows(column, sums);
#pragma GCC unroll 4
            for (int r = 0; r < FEW_ROWS; ++r) out[least(row + r * apart, p.n_rows - 1)] = sums[r];
        }
    }
};

template <int T> INLINE void take_tokens(const Product &p, int first, Token (&x)[T]) {
    for (int t = 0; t < T; ++t) x[t] = token_of(p.input->quantized, p.tokens ? p.tokens[first + t] : first + t);
}

// How far before its use a line of a stream is fetched. Beyond the end of a stream lies one that was read already: there the
// same stream of the product that this thread does next.
class Distance {
  public:
    Distance(const Product &p, int row, int apart)
        : left((apart - row) * int64_t(p.row_bytes)), jump(p.next - p.weights - apart * int64_t(p.row_bytes)) {}

    INLINE int64_t step(int bytes) {
        const int64_t distance = left > AHEAD ? AHEAD : AHEAD + jump;
        left -= bytes;
        return distance;
    }

  private:
    int64_t left, jump;
};

template <class D, int T> void few_tokens_tile(const Product &p, int row, int apart, int first) {
    const int64_t n_groups = p.row_bytes / D::group_bytes, rest = p.row_bytes % D::group_bytes;
    const uint8_t *g[FEW_ROWS];
    Token x[T];
    Sums<D, T> sums;
    for (int r = 0; r < FEW_ROWS; ++r) g[r] = row_of(p, row + r * apart);
    take_tokens(p, first, x);
    const auto add = [&]<int N>(std::integral_constant<int, N>, int64_t i) {
        Inputs<D, N> q[T];
        for (int t = 0; t < T; ++t) q[t].take(x[t].q + 256 * i);
#pragma GCC unroll 4
        for (int r = 0; r < FEW_ROWS; ++r) add_group<D>(sums.dot[r], sums.folded[r], g[r], x, q, 8 * i);
    };
    Distance distance(p, row, apart);
    for (int64_t i = 0; i < n_groups; ++i) {
        const int64_t ahead = distance.step(D::group_bytes);
#pragma GCC unroll 4
        for (int r = 0; r < FEW_ROWS; ++r)
            for (int line = 0; line < D::group_bytes; line += 64) __builtin_prefetch(g[r] + ahead + line);
        add(std::integral_constant<int, Steps<D>::N>(), i);
#pragma GCC unroll 4
        for (int r = 0; r < FEW_ROWS; ++r) g[r] += D::group_bytes;
    }
    if (rest) {
        uint8_t copy[FEW_ROWS][D::group_bytes];
        for (int r = 0; r < FEW_ROWS; ++r) g[r] = whole_group<D>(p, g[r], rest, copy[r]);
        if (rest <= D::group_bytes / 2) add(std::integral_constant<int, Steps<D>::N / 2>(), n_groups);
        else add(std::integral_constant<int, Steps<D>::N>(), n_groups);
    }
    sums.store_for(p, row, apart, first);
}

}  // namespace
