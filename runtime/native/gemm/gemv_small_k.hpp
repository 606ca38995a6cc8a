// Products with few tokens and rows of one group (256 elements) or less.
//
// Such rows cost by the row and not by the byte. So what tokens bring stays in registers while all
// rows pass: loaded anew for every four rows it made the packaged student's token a fifth slower.
// Rows of 32, 64 and 128 elements are taken as many at a time as fill a group of 256: R is 8, 4, 2.
//
//   group      | row r: K codes | row r + 1     | row r + 2     | ...     K = 256 / R
//   token      | x              | x             | x             | ...     repeated R times
//
// and the sums of a step's blocks are those of its rows.
#pragma once

#include "runtime/native/gemm/gemv.hpp"

namespace {

// Rows of up to 256 elements, T tokens.
template <class D, int T> void gemv_one_group(const GemmTask &task, int first) {
    const int apart = (task.n_rows + kGemvRows - 1) / kGemvRows;
    Token x[T];
    Inputs<D, Steps<D>::N> q[T];
    load_tokens(task, first, x);
    for (int t = 0; t < T; ++t) q[t].load(x[t], 0);
    for (int row = 0; row < apart; ++row) {
        uint8_t copy[kGemvRows][D::group_bytes];
        RowSums<D, T> sums;
#pragma GCC unroll 4
        for (int r = 0; r < kGemvRows; ++r) {
            const uint8_t *g = row_of(task, row + r * apart);
            for (size_t line = 0; line < task.row_bytes; line += 64)
                __builtin_prefetch(g + kPrefetchBytes + line);
            add_group<D, Steps<D>::N>(sums.dot[r], sums.correction[r],
                                      whole_group<D>(task, g, task.row_bytes, copy[r]), x, q, 0);
        }
        sums.store(task, row, apart, first);
    }
}

// T tokens at a time, then the rest.
template <class D, int T> INLINE void gemv_one_groups(const GemmTask &task, int t) {
    for (; t + T <= task.n_tokens; t += T) gemv_one_group<D, T>(task, t);
    if constexpr (T > 1) gemv_one_groups<D, T - 1>(task, t);
}

// A token of 256 / R elements R times over. Padding of the record is not read.
template <int R> struct RepeatedToken {
    static constexpr int K = 256 / R;
    alignas(64) int8_t q[256];
    float d[8];
    int32_t sum32[8];

    explicit RepeatedToken(const Token &x) {
        for (int r = 0; r < R; ++r) {
            std::memcpy(q + r * K, x.q, K);
            std::memcpy(d + r * K / 32, x.d, K / 8);
            std::memcpy(sum32 + r * K / 32, x.sum32, K / 8);
        }
    }
    Token token() { return {q, d, sum32, nullptr}; }
};

// Part `i` of kParts of a register; zeros elsewhere.
template <int kParts> INLINE F part(F v, int i) {
    I lane;
    for (int l = 0; l < kLanes; ++l) lane[l] = l * kParts / kLanes;
    return (F)((I)v & (lane == i));
}

// The R rows that lie in one group, to R registers whose lanes add up to their dot products but for
// the corrections, which are returned for each block.
template <class D, int R>
INLINE F8 add_packed(const uint8_t *g, const Token &x, const Inputs<D, Steps<D>::N> &q, F *row) {
    constexpr int N = Steps<D>::N, kPerStep = R > N ? R / N : 1, kPerRow = R > N ? 1 : N / R;
    Correction<Steps<D>::kBiasLeft> correction;
    F8 scale[2], minimum[2], product[2];
    D::scale(g, scale);
    if constexpr (D::kHasMin) D::min(g, minimum);
    multiply_scales<D>(scale, minimum, x, 0, product, correction);
#pragma GCC unroll 8
    for (int r = 0; r < R; r += kPerStep) {
        F sum{};
        for (int i = 0, c = r / kPerStep * kPerRow; i < kPerRow; ++i, ++c)
            sum = Steps<D>::add(sum, Steps<D>::codes(g, c), q.at[c], product, c);
        if constexpr (kPerStep == 1) row[r] = sum;
        else
            for (int i = 0; i < kPerStep; ++i) row[r + i] = part<kPerStep>(sum, i);
    }
    return correction.of_blocks();
}

// Rows of 256 / R elements, as many at a time as a group holds, and four at least, since four are
// reduced together.
template <class D, int R> void gemv_packed_rows(const GemmTask &task, int token) {
    constexpr int kGroups = R < 4 ? 4 / R : 1, kRows = kGroups * R;
    Token own[1];
    load_tokens(task, token, own);
    RepeatedToken<R> repeated(own[0]);
    const Token x = repeated.token();
    Inputs<D, Steps<D>::N> q;
    q.load(x, 0);
    for (int first = 0; first < task.n_rows; first += kRows) {
        uint8_t copy[D::group_bytes];
        F row[kRows];
        F8 of_blocks[kGroups];
        float sums[kRows];
        for (int i = 0; i < kGroups; ++i) {
            const int at = min(first + i * R, task.n_rows - 1);
            const uint8_t *g = task.weights + at * task.row_bytes;
            for (int line = 0; line < D::group_bytes; line += 64)
                __builtin_prefetch(g + kPrefetchBytes + line);
            const uint8_t *whole =
                whole_group<D>(task, g, (task.n_rows - at) * task.row_bytes, copy);
            of_blocks[i] = add_packed<D, R>(whole, x, q, row + i * R);
        }
        for (int r = 0; r < kRows; r += 4)
            reduce_add_rows(reinterpret_cast<const F(&)[4]>(row[r]), sums + r);
        for (int r = 0; r < kRows; ++r)
            for (int b = 0; b < 8 / R; ++b) sums[r] += of_blocks[r / R][r % R * (8 / R) + b];
        std::memcpy(task.out + token * task.out_stride + first, sums,
                    min(task.n_rows - first, kRows) * sizeof(float));
    }
}

// Rows of more than one group: T tokens at a time, then the rest; they share what decoding costs.
template <class D, bool kPrepared, int T>
INLINE void gemv_tiles(const GemmTask &task, const PreparedInputs<D> &prepared, int row, int apart,
                       int t) {
    for (; t + T <= task.n_tokens; t += T) {
        if (kFiveAreThreeAndTwo && T > 3 && t + T + 1 == task.n_tokens) break;
        gemv_tile<D, T, kPrepared>(task, prepared, row, apart, t);
    }
    if constexpr (T > 1) gemv_tiles<D, kPrepared, T - 1>(task, prepared, row, apart, t);
}

template <class D> void gemv_groups(const GemmTask &task) {
    const int apart = (task.n_rows + kGemvRows - 1) / kGemvRows;
    const PreparedInputs<D> prepared(task);
    const auto all_rows = [&]<bool kPrepared>(std::bool_constant<kPrepared>) {
        for (int row = 0; row < apart; ++row)
            gemv_tiles<D, kPrepared, kGemvTokens>(task, prepared, row, apart, 0);
    };
    if constexpr (kPrepares<D>)
        if (prepared) return all_rows(std::true_type());
    all_rows(std::false_type());
}

// Any number of rows and tokens.
template <class D> void gemv(const GemmTask &task) {
    const auto each_token = [&](auto &&rows) {
        for (int t = 0; t < task.n_tokens; ++t) rows(t);
    };
    if constexpr (requires { D::block_bytes; }) {
        if (task.input->k == 32) return each_token([&](int t) { gemv_packed_rows<D, 8>(task, t); });
        if (task.input->k == 64) return each_token([&](int t) { gemv_packed_rows<D, 4>(task, t); });
        if (task.input->k == 128)
            return each_token([&](int t) { gemv_packed_rows<D, 2>(task, t); });
    }
    if (task.input->k > 256) return gemv_groups<typename LongRows<D>::Decoder>(task);
    gemv_one_groups<D, kGemvTokens>(task, 0);
}

}  // namespace
