// Products with few tokens (GEMV): rows stream past once, and every token takes its dot product
// from the codes while they are in registers. Memory is the limit, so everything here serves the
// reads.
//
// kGemvRows rows are walked at once, as far apart as the task allows. A task of n rows is cut into
// kGemvRows streams of n / kGemvRows rows each, and each step takes one group of every stream:
//
//   stream 0   [row 0     ][row 1       ] ...
//   stream 1   [row n/4   ][row n/4 + 1 ] ...
//   stream 2   [row n/2   ] ...
//   stream 3   [row 3n/4  ] ...
//
// One stream of reads per thread reached 18 to 21 GB/s on two cores, four in different pages 23 to
// 32, and eight no more (docs/speed.md): the hardware prefetcher follows one stream per page.
//
// The scales of a group's eight blocks are converted, multiplied and folded together: one by one
// they cost as much as the codes.
#pragma once

#include <type_traits>

#include "runtime/native/gemm/decoders.hpp"
#include "runtime/native/gemm/reduce.hpp"
#include "runtime/native/gemm/token.hpp"

namespace {

// How far ahead of its use a line of a stream is fetched. At 10 GB/s per thread a kilobyte lasts
// about 100 ns, a memory access. Measured: 5 to 10 % faster than no prefetch, and 2048 no faster.
constexpr int kPrefetchBytes = 1024;

// Subtracted from each code; vpdpbusd takes unsigned codes, to which signed ones are shifted.
template <class D> constexpr int kBias = D::kZero + (D::kSigned ? kSignedBias : 0);
template <class D> constexpr int kScales = D::kHalves ? 16 : 8;  // of a group

// How the codes of a group meet a token's activations: in N steps of kBlocks blocks each. kBiasLeft
// is what a step leaves of the bias for the caller to take off. Every format has its own on NEON.
#if defined(SPRAT_NEON)
template <class D> struct Steps;
#else
template <class D> struct Steps {
    static constexpr int N = 8 / kChunkBlocks, kBlocks = kChunkBlocks, kBiasLeft = kBias<D>;
    typedef Chunk Codes;
    typedef const int8_t *Input;

    static INLINE Codes codes(const uint8_t *g, int c) { return chunk<D>(g, c); }
    static INLINE Input input(const Token &x, int64_t block) { return x.q + 32 * block; }
    static INLINE F add(F total, const Codes &codes, Input x, const F8 *scale, int c) {
        return add_dot<D::kSigned, D::kHalves>(total, codes, x, scale, c);
    }
};
#endif

// What decodes rows of more than one group: the same, unless a set has another way for these.
template <class D> struct LongRows {
    typedef D Decoder;
};

}  // namespace

#if defined(__AVX512VBMI__)
#include "runtime/native/isa/x86/quads512.hpp"
//
#include "runtime/native/isa/x86/groups512.hpp"
#elif defined(__AVX2__)
#include "runtime/native/isa/x86/groups256.hpp"
#elif defined(SPRAT_NEON)
#include "runtime/native/isa/arm/started_dots.hpp"
#endif

namespace {

// Whether a set adds a group of a format in a way of its own. Rows of such a format are whole
// groups.
template <class D> constexpr bool kOfWholeGroups = requires { Steps<D>::kWholeGroups; };

// Contribution of zero point and minimum to a dot product, per block:
// -bias * sum(scale * q) + sum(min * q).
template <int kBiasOf> struct Correction {
    F8 biased{}, minimum{};

    INLINE F8 of_blocks() const { return minimum + biased * float(-kBiasOf); }
};

// The scales of a row's group times those of a token's activations.
template <class D>
INLINE void multiply_scales(const F8 *scale, const F8 *minimum, const Token &x, int64_t block,
                            F8 *product, Correction<Steps<D>::kBiasLeft> &correction) {
    const F8 d = load8(x.d + block);
    if constexpr (D::kHalves) {
        const F8 low = twice<0>(d), high = twice<4>(d);
        const F8 first = integers8(x.sum16 + 2 * block),
                 second = integers8(x.sum16 + 2 * block + 8);
        product[0] = scale[0] * low, product[1] = scale[1] * high;
        if constexpr (Steps<D>::kBiasLeft != 0)
            correction.biased += first * product[0] + second * product[1];
        if constexpr (D::kHasMin)
            correction.minimum += first * low * minimum[0] + second * high * minimum[1];
    } else {
        product[0] = scale[0] * d;
        if constexpr (Steps<D>::kBiasLeft != 0)
            correction.biased += integers8(x.sum32 + block) * product[0];
        if constexpr (D::kHasMin) correction.minimum += integers8(x.sum32 + block) * d * minimum[0];
    }
}

// A token's activations for the first N steps of a group, in the form that these want: once for all
// rows.
template <class D, int N> struct Inputs {
    typename Steps<D>::Input at[N];

    INLINE void load(const Token &x, int64_t block) {
#pragma GCC unroll 8
        for (int c = 0; c < N; ++c) at[c] = Steps<D>::input(x, block + Steps<D>::kBlocks * c);
    }
};

// The same of a group that was prepared for all rows of a task (PreparedInputs).
template <class D> struct InputsAt {
    const typename Steps<D>::Input *at;
};

// Adds the first N steps of one group of a row, for T tokens; `q` has their inputs.
template <class D, int N, int T, class Q>
INLINE void add_group(F (&dot)[T], Correction<Steps<D>::kBiasLeft> (&correction)[T],
                      const uint8_t *g, const Token (&x)[T], const Q (&q)[T], int64_t block) {
    if constexpr (kOfWholeGroups<D>) {
        Steps<D>::add_group(dot, g, q);
    } else {
        F8 scale[2], minimum[2], product[T][2];
        D::scale(g, scale);
        if constexpr (D::kHasMin) D::min(g, minimum);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t)
            multiply_scales<D>(scale, minimum, x[t], block, product[t], correction[t]);
#pragma GCC unroll 8
        for (int c = 0; c < N; ++c) {
            const auto codes = Steps<D>::codes(g, c);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t)
                dot[t] = Steps<D>::add(dot[t], codes, q[t].at[c], product[t], c);
        }
    }
}

// Decoders read whole groups. Behind a row that ends within one lies the next row, whose codes meet
// padding zeros; behind the last row may lie the end of the file, so that its end is copied.
template <class D>
INLINE const uint8_t *whole_group(const GemmTask &task, const uint8_t *g, size_t rest,
                                  uint8_t *copy) {
    if (g + D::group_bytes <= task.weights + task.n_rows * task.row_bytes) return g;
    std::memset(copy, 0, D::group_bytes);
    std::memcpy(copy, g, rest);
    return copy;
}

INLINE const uint8_t *row_of(const GemmTask &task, int row) {
    return task.weights + min(row, task.n_rows - 1) * task.row_bytes;
}

// Sums of rows `row`, `row + apart`, ... and T tokens; beyond the last row, that one once more.
template <class D, int T> struct RowSums {
    F dot[kGemvRows][T] = {};
    Correction<Steps<D>::kBiasLeft> correction[kGemvRows][T];

    INLINE void store(const GemmTask &task, int row, int apart, int first) const {
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
            F column[kGemvRows];
            float sums[kGemvRows], *out = task.out + (first + t) * task.out_stride;
#pragma GCC unroll 4
            for (int r = 0; r < kGemvRows; ++r)
                column[r] = dot[r][t] + as_lane_sums(correction[r][t].of_blocks());
            reduce_add_rows(column, sums);
#pragma GCC unroll 4
            for (int r = 0; r < kGemvRows; ++r)
                out[min(row + r * apart, task.n_rows - 1)] = sums[r];
        }
    }
};

template <int T> INLINE void load_tokens(const GemmTask &task, int first, Token (&x)[T]) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) x[t] = token_of(task, first + t);
}

// Where to fetch, relative to the group that is read. Behind the end of a stream lies the beginning
// of the one beside it, which was read already: instead, the same stream of the task that this
// thread does next. A token of DeepSeek-V2-Lite's shape took 0.94 of the time with it.
class PrefetchDistance {
  public:
    PrefetchDistance(const GemmTask &task, int row, int apart)
        : left_((apart - row) * int64_t(task.row_bytes)),
          jump_(task.next - task.weights - apart * int64_t(task.row_bytes)) {}

    INLINE int64_t step(int n_bytes) {
        const int64_t distance = left_ > kPrefetchBytes ? kPrefetchBytes : kPrefetchBytes + jump_;
        left_ -= n_bytes;
        return distance;
    }

  private:
    int64_t left_, jump_;
};

// Whether inputs take vector operations to make.
template <class D> constexpr bool kPrepares = !std::is_pointer_v<typename Steps<D>::Input>;

// Inputs of all groups of several tokens, in the task's scratch: made once for all rows, if they
// fit. Of one token they are made again for every four rows: no slower, where memory is the limit.
template <class D> class PreparedInputs {
  public:
    explicit PreparedInputs(const GemmTask &task)
        : n_groups_(task.input->quantized.k_padded / 256) {
        const size_t n = size_t(task.n_tokens) * n_groups_;
        if constexpr (kPrepares<D>) {
            if (task.n_tokens < kMinPreparedTokens ||
                n * sizeof(Group) > sprat::gemm_scratch_bytes(task.n_tokens))
                return;
            groups_ = reinterpret_cast<Group *>(task.scratch);
            for (int t = 0; t < task.n_tokens; ++t)
                for (int64_t i = 0; i < n_groups_; ++i)
                    groups_[t * n_groups_ + i].load(token_of(task, t), 8 * i);
        }
    }

    explicit operator bool() const { return groups_ != nullptr; }

    INLINE InputsAt<D> at(int token, int64_t group) const {
        return {groups_[token * n_groups_ + group].at};
    }

  private:
    typedef Inputs<D, Steps<D>::N> Group;

    int64_t n_groups_;
    Group *groups_ = nullptr;
};

// Rows `row`, `row + apart`, ... times T tokens.
template <class D, int T, bool kPrepared>
void gemv_tile(const GemmTask &task, const PreparedInputs<D> &prepared, int row, int apart,
               int first) {
    const int64_t n_groups = task.row_bytes / D::group_bytes,
                  rest = task.row_bytes % D::group_bytes;
    const uint8_t *g[kGemvRows];
    Token x[T];
    RowSums<D, T> sums;
#pragma GCC unroll 4
    for (int r = 0; r < kGemvRows; ++r) g[r] = row_of(task, row + r * apart);
    load_tokens(task, first, x);
    const auto add = [&]<int N>(std::integral_constant<int, N>, int64_t i) {
        std::conditional_t<kPrepared, InputsAt<D>, Inputs<D, N>> q[T];
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t)
            if constexpr (kPrepared) q[t] = prepared.at(first + t, i);
            else q[t].load(x[t], 8 * i);
#pragma GCC unroll 4
        for (int r = 0; r < kGemvRows; ++r) {
            // The inputs and sums of so many tokens fill more registers than there are: an address
            // that the compiler does not know to be the same is loaded from, not spilled.
            if constexpr (kPrepared && T > 3)
#pragma GCC unroll 4
                for (int t = 0; t < T; ++t) __asm__("" : "+r"(q[t].at));
            add_group<D, N>(sums.dot[r], sums.correction[r], g[r], x, q, 8 * i);
        }
    };
    PrefetchDistance distance(task, row, apart);
    for (int64_t i = 0; i < n_groups; ++i) {
        const int64_t ahead = distance.step(D::group_bytes);
#pragma GCC unroll 4
        for (int r = 0; r < kGemvRows; ++r)
            for (int line = 0; line < D::group_bytes; line += 64)
                __builtin_prefetch(g[r] + ahead + line);
        add(std::integral_constant<int, Steps<D>::N>(), i);
#pragma GCC unroll 4
        for (int r = 0; r < kGemvRows; ++r) g[r] += D::group_bytes;
    }
    if constexpr (!kOfWholeGroups<D>)
        if (rest) {
            uint8_t copy[kGemvRows][D::group_bytes];
            for (int r = 0; r < kGemvRows; ++r) g[r] = whole_group<D>(task, g[r], rest, copy[r]);
            constexpr int N = Steps<D>::N, kHalf = N > 1 ? N / 2 : N;
            if (rest <= D::group_bytes / 2) add(std::integral_constant<int, kHalf>(), n_groups);
            else add(std::integral_constant<int, N>(), n_groups);
        }
    sums.store(task, row, apart, first);
}

}  // namespace
