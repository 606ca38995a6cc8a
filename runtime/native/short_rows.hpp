// Few tokens and rows of a group or less: what tokens bring stays in registers while all rows pass. Taken anew for every
// four rows it made the packaged student's token a fifth slower.
#pragma once

#include "runtime/native/few_tokens.hpp"

namespace {

template <class D, int T> void short_rows(const Product &p, int first) {
    const int apart = (p.n_rows + FEW_ROWS - 1) / FEW_ROWS;
    Token x[T];
    Inputs<D, Steps<D>::N> q[T];
    take_tokens(p, first, x);
    for (int t = 0; t < T; ++t) q[t].take(x[t].q);
    for (int row = 0; row < apart; ++row) {
        uint8_t copy[FEW_ROWS][D::group_bytes];
        Sums<D, T> sums;
#pragma GCC unroll 4
        for (int r = 0; r < FEW_ROWS; ++r) {
            const uint8_t *g = row_of(p, row + r * apart);
            for (size_t line = 0; line < p.row_bytes; line += 64) __builtin_prefetch(g + AHEAD + line);
            add_group<D>(sums.dot[r], sums.folded[r], whole_group<D>(p, g, p.row_bytes, copy[r]), x, q, 0);
        }
        sums.store_for(p, row, apart, first);
    }
}

// A token of 256 / R numbers R times over, as rows that share a group want it. Of padding nothing is read.
template <int R> struct Repeated {
    static constexpr int K = 256 / R;
    alignas(64) int8_t q[256];
    float d[8];
    int32_t sum32[8];

    explicit Repeated(const Token &x) {
        for (int r = 0; r < R; ++r) {
            std::memcpy(q + r * K, x.q, K);
            std::memcpy(d + r * K / 32, x.d, K / 8);
            std::memcpy(sum32 + r * K / 32, x.sum32, K / 8);
        }
    }
    Token token() { return {q, d, sum32, nullptr}; }
};

// Part `i` of PARTS of a register; zeros elsewhere.
template <int PARTS> INLINE F part(F v, int i) {
    I lane;
    for (int l = 0; l < LANES; ++l) lane[l] = l * PARTS / LANES;
    return (F)((I)v & (lane == i));
}

// R rows that lie in one group, to R registers whose sums are theirs but for what `folded` says of each block.
template <class D, int R>
INLINE F8 add_packed(const uint8_t *g, const Token &x, const Inputs<D, Steps<D>::N> &q, F *row) {
    constexpr int N = Steps<D>::N, PER_STEP = R > N ? R / N : 1, PER_ROW = R > N ? 1 : N / R;
    Folded<Steps<D>::BIAS_LEFT> folded;
    F8 scale[2], min{}, product[2];
    D::scale(g, scale);
    if constexpr (D::has_min) min = D::min(g);
    fold<D>(scale, min, x, 0, product, folded);
#pragma GCC unroll 8
    for (int r = 0; r < R; r += PER_STEP) {
        F sum{};
        for (int i = 0, c = r / PER_STEP * PER_ROW; i < PER_ROW; ++i, ++c)
            sum = Steps<D>::add(sum, Steps<D>::codes(g, c), q.at[c], product, c);
        if constexpr (PER_STEP == 1) row[r] = sum;
        else
            for (int i = 0; i < PER_STEP; ++i) row[r + i] = part<PER_STEP>(sum, i);
    }
    return folded.of_blocks();
}

// Rows of 256 / R numbers, as many at a time as a group holds, and four at least.
template <class D, int R> void packed_rows(const Product &p, int token) {
    constexpr int GROUPS = R < 4 ? 4 / R : 1, ROWS = GROUPS * R;
    Token own[1];
    take_tokens(p, token, own);
    Repeated<R> repeated(own[0]);
    const Token x = repeated.token();
    Inputs<D, Steps<D>::N> q;
    q.take(x.q);
    for (int first = 0; first < p.n_rows; first += ROWS) {
        uint8_t copy[D::group_bytes];
        F row[ROWS];
        F8 of_blocks[GROUPS];
        float sums[ROWS];
        for (int i = 0; i < GROUPS; ++i) {
            const int at = least(first + i * R, p.n_rows - 1);
            const uint8_t *g = p.weights + at * p.row_bytes;
            for (int line = 0; line < D::group_bytes; line += 64) __builtin_prefetch(g + AHEAD + line);
            of_blocks[i] = add_packed<D, R>(whole_group<D>(p, g, (p.n_rows - at) * p.row_bytes, copy), x, q, row + i * R);
        }
        for (int r = 0; r < ROWS; r += 4) sum_rows(reinterpret_cast<const F(&)[4]>(row[r]), sums + r);
        for (int r = 0; r < ROWS; ++r)
            for (int b = 0; b < 8 / R; ++b) sums[r] += of_blocks[r / R][r % R * (8 / R) + b];
        std::memcpy(p.out + token * p.out_stride + first, sums, least(p.n_rows - first, ROWS) * sizeof(float));
    }
}

template <class D> void few_tokens(const Product &p) {
    const auto each_token = [&](auto &&rows) {
        for (int t = 0; t < p.n_tokens; ++t) rows(t);
    };
    if constexpr (requires { D::block_bytes; }) {
        if (p.input->k == 32) return each_token([&](int t) { packed_rows<D, 8>(p, t); });
        if (p.input->k == 64) return each_token([&](int t) { packed_rows<D, 4>(p, t); });
        if (p.input->k == 128) return each_token([&](int t) { packed_rows<D, 2>(p, t); });
    }
    const bool is_short = p.input->k <= 256;
    const int apart = (p.n_rows + FEW_ROWS - 1) / FEW_ROWS;
    for (int row = 0; row < (is_short ? 1 : apart); ++row) {
        int t = 0;
        for (; t + 2 <= p.n_tokens; t += 2) is_short ? short_rows<D, 2>(p, t) : few_tokens_tile<D, 2>(p, row, apart, t);
        if (t < p.n_tokens) is_short ? short_rows<D, 1>(p, t) : few_tokens_tile<D, 1>(p, row, apart, t);
    }
}

}  // namespace
