// Products with many tokens (GEMM), after Goto and BLIS: a panel of rows is unpacked once into the
// first-level cache (panel.hpp), and a micro-kernel multiplies it with kMR tokens at a time.
//
//                     columns (k) -->
//   weights   [ kNR x kKC panel ][ next panel ] ...      for each panel of kNR rows
//   tokens    [ kMR x kKC tile  ]                          for each kKC columns
//             [ kMR x kKC tile  ] ...                        for each tile of kMR tokens
//   sums      [ kMR x kNR ] in registers, added to the tokens' sums, which wait in the second-level
//             cache (kNR floats = 128 bytes a token with AVX-512)
//
// kMR x kNR (isa/x86/avx512.hpp and others say why) is chosen so that the int32 sums of a block and
// the float sums of the tile fill the registers: the int8 dot product has a latency of 5 cycles, so
// 10 and more independent sums keep two ports busy.
#pragma once

#include "runtime/native/gemm/gemv_small_k.hpp"
#include "runtime/native/gemm/panel.hpp"

namespace {

// Token `i` of the task; beyond the last one, that one once more.
INLINE Token token_or_last(const GemmTask &task, int i) {
    return token_of(task, min(i, task.n_tokens - 1));
}

// The micro-kernel: adds the panel's products with T tokens to their sums
// (T / kTokensPerVector, kNR, kTokensPerVector). kSteps groups of four codes share a scale: 8, or 4
// in formats with halves. Dot products of a block start at -bias * sum(q), so that the zero point
// costs nothing (and at kDotStart, see scaled()). Compiled for each kind of format, of which there
// are fewer than formats. In one piece: with the loop over tokens in a function of its own, GCC 12
// allocated the registers of the main loop otherwise, and it took about 3 % longer.
template <class Sums, bool kMin, int kSteps, int kBiasOf, int T>
void gemm_tile(const GemmTask &task, const Panel &panel, int first_column, int n_columns, int first,
               const NextPanel &ahead, float *sums) {
    constexpr int G = kTokensPerVector, N = T / G, V = kNRVectors * G, kBlocks = kKC / (4 * kSteps);
    const int n_blocks = n_columns / (4 * kSteps);
    const int8_t *q[T], *next[T];
    int32_t start[N][kBlocks][G];
    float scale_of[N][kBlocks][G], minimum_of[N][kMin ? kBlocks : 1][G];
    // Of the tokens, in the order in which it is read: codes, also of the next tile's tokens, which
    // are prefetched; for each block where the dot products start, the scale, and the factor of the
    // minimum.
    for (int t = 0; t < T; t += G) {
        Token x[G];
        for (int g = 0; g < G; ++g) {
            x[g] = token_or_last(task, first + t + g);
            q[t + g] = x[g].q + first_column;
            next[t + g] = token_or_last(task, first + T + t + g).q + first_column;
        }
        for (int b = 0; b < n_blocks; b += kLanes) {  // may read on into the record's next field
            I starts[G];
            F scales[G], minima[G];  // kSteps 4: scales of twice the columns
            for (int g = 0; g < G; ++g) {
                const int32_t *sum = kSteps == 4 ? x[g].sum16 : x[g].sum32;
                const float *d = x[g].d + first_column / 32;
                const I sums_of_q = load<I>(sum + first_column / (4 * kSteps) + b);
                starts[g] = sums_of_q * -kBiasOf + kDotStart, scales[g] = load<F>(d + b);
                if constexpr (kMin && kSteps == 8) minima[g] = to_float(sums_of_q) * scales[g];
                if constexpr (kMin && kSteps == 4) {
                    F each_twice;
                    for (int i = 0; i < kLanes; ++i) each_twice[i] = d[(b + i) / 2];
                    minima[g] = to_float(sums_of_q) * each_twice;
                }
            }
            store_interleaved(starts, start[t / G][b]);
            store_interleaved(scales, scale_of[t / G][b]);
            if constexpr (kMin) store_interleaved(minima, minimum_of[t / G][b]);
        }
    }
    F total[N][V];
#pragma GCC unroll 16
    for (int t = 0; t < N; ++t)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) total[t][v] = load<F>(sums + (t * V + v) * kLanes);
    const uint8_t *codes = panel.codes[0][0];
    const float *scale = panel.scale[0], *minimum = panel.minimum[0], *shift = panel.shift[0];
    const auto start_at = [&](int t, int v, int b) {
        if constexpr (kCenteredPanels) return dot_start(t * V + v, b);
        else return broadcast_tokens<I>(start[t][b]);
    };
    const auto total_start = [&](int t, int b) {
        if constexpr (kCenteredPanels) return I{} + kDotStart;
        else return broadcast_tokens<I>(start[t][b]);
    };
    all_written();
    PanelPrefetcher prefetcher(ahead, first, min(first + T, task.n_tokens), task.n_tokens,
                               n_blocks);
    for (int b = 0; b < n_blocks; ++b) {
        prefetcher.step();
        typename Sums::Sum dot[N][V];
        decltype(load_activations(q, 0)) x[N];
#pragma GCC unroll 16
        for (int t = 0; t < N; ++t) {
            for (int i = 0; i < G; ++i) __builtin_prefetch(next[G * t + i] + 4 * kSteps * b);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dot[t][v] = Sums::begin(start_at(t, v, b));
        }
        // The dot products of one block: four codes of kNR rows times four of each token.
#pragma GCC unroll 8
        for (int j = 0; j < kSteps; j += G) {
#pragma GCC unroll 16
            for (int t = 0; t < N; ++t) {
                if (j % kStepsPerLoad == 0)
                    x[t] = load_activations(q + G * t, 4 * (b * kSteps + j));
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    Sums::add(dot[t][v], j, codes + 4 * ((j + v % G) * kNR + v / G * kLanes), x[t]);
            }
        }
        // Times the scales of row and token.
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const F of_row = load_row_scales(scale + v / G * kLanes, v % G);
#pragma GCC unroll 16
            for (int t = 0; t < N; ++t) {
                total[t][v] = add_block(
                    total[t][v], Sums::total(dot[t][v], total_start(t, b)), of_row,
                    shift + v / G * kLanes, scale_of[t][b * kSteps / 8], t * V + v, b);
            }
            if constexpr (kMin) {
                const F of_row_min = load_row_scales(minimum + v / G * kLanes, v % G);
#pragma GCC unroll 16
                for (int t = 0; t < N; ++t)
                    total[t][v] = add_minimum(total[t][v], of_row_min, minimum_of[t][b]);
            }
        }
        codes += 4 * kSteps * kNR, scale += kNR, minimum += kNR, shift += kNR;
    }
#pragma GCC unroll 16
    for (int t = 0; t < N; ++t)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(sums + (t * V + v) * kLanes, total[t][v]);
}

// Tiles of T tokens, then narrower ones. The last may hold a token twice: its second sums are not
// stored.
template <class D, int T>
void gemm_tiles(const GemmTask &task, const Panel &panel, int row, int column, float *sums, int t) {
    const int n_columns = min(task.input->k - column, kKC);
    const NextPanel ahead = next_panel<D>(task, row, column);
    for (; t < task.n_tokens - (T > 2 ? T - 2 : 0); t += T) {
        if (column + kKC >= task.input->k)  // sums are stored next, each token's to another page
            for (int i = t; i < min(t + T, task.n_tokens); ++i)
                __builtin_prefetch(task.out + i * task.out_stride + row, 1);
        gemm_tile<PanelSums<D>, D::kHasMin, D::kHalves ? 4 : 8, kPanelBias<D>, T>(
            task, panel, column, n_columns, t, ahead, sums + t * kNR);
    }
    if constexpr (T > 2) gemm_tiles<D, T - 2>(task, panel, row, column, sums, t);
}

// MC and NC of BLIS: tokens and rows of which the caches hold what several panels share. Each panel
// of the rows passes over the same kKC columns of the tokens: 1.5 KB of each, 144 KB of 96 tokens,
// which stay in a second-level cache of 256 KB, while the sums of 64 rows take 25 KB. With narrow
// panels and without these blocks, 512 tokens came from memory anew for every eight rows.
constexpr bool kInBlocks = kTokenBlock < 1024;
constexpr int kRowBlock = kInBlocks ? 64 : kNR;
static_assert(!kInBlocks ||
                  sizeof(Panel) + kRowBlock * (kTokenBlock + kMR) * sizeof(float) <= 64 * 1024,
              "gemm_scratch_bytes is too small");

// Of up to kRowBlock rows and kTokenBlock tokens.
template <class D> void gemm_block(const GemmTask &task) {
    Panel &panel = *reinterpret_cast<Panel *>(task.scratch);
    float *sums = reinterpret_cast<float *>(task.scratch + (sizeof(Panel) + 63) / 64 * 64);
    const int of_panel = (task.n_tokens + kMR) * kNR, n_panels = (task.n_rows + kNR - 1) / kNR;
    std::memset(sums, 0, size_t(n_panels * of_panel) * sizeof(float));
    for (int column = 0; column < task.input->k; column += kKC)
        for (int i = 0; i < n_panels; ++i) {
            unpack<D>(task, i * kNR, column / 256, panel);
            gemm_tiles<D, kMR>(task, panel, i * kNR, column, sums + i * of_panel, 0);
        }
    // Each token's results at once: of several tokens they may fall to the same set of a cache.
    for (int t = 0; t < task.n_tokens; ++t) {
        const float *sum =
            sums + t / kTokensPerVector * kTokensPerVector * kNR + t % kTokensPerVector;
        float *out = task.out + t * task.out_stride;
        for (int row = 0; row < task.n_rows; row += kNR, sum += of_panel, out += kNR)
            for (int r = 0; r < min(task.n_rows - row, kNR); ++r)
                out[r] = sum[r * kTokensPerVector];
    }
}

template <class D> void gemm(const GemmTask &task) {
    for (int row = 0; row < task.n_rows; row += kRowBlock)
        for (int first = 0; first < task.n_tokens; first += kTokenBlock) {
            const sprat::Activations input = task.tokens ? *task.input : task.input->from(first);
            GemmTask block = task;
            block.weights += row * task.row_bytes;
            block.n_rows = min(task.n_rows - row, kRowBlock);
            block.n_tokens = min(task.n_tokens - first, kTokenBlock);
            block.input = &input;
            if (task.tokens) block.tokens += first;
            block.out += first * task.out_stride + row;
            // The same rows once more, or those behind them, or the next task's.
            if (first + kTokenBlock < task.n_tokens) block.next = block.weights;
            else if (row + kRowBlock < task.n_rows)
                block.next = block.weights + kRowBlock * task.row_bytes;
            gemm_block<D>(block);
        }
}

template <BlockDecoder D> void gemm_task(const GemmTask &task) {
    if (task.n_tokens < kMinGemmTokens) gemv<D>(task);
    else gemm<D>(task);
}

// One block; `scale` and `minimum` are those of its group. Codes are below 128, so that both kinds
// pass for signed.
template <class D>
INLINE void dequantize_block(const uint8_t *codes, int block, const F8 *scale, const F8 *minimum,
                             float *out) {
    for (int i = 0; i < 32; i += kLanes) {
        const int s = D::kHalves ? 2 * block + i / 16 : block;
        store(out + i, (load_int8(codes + i) - float(D::kZero)) * scale[s / 8][s % 8] +
                           minimum[s / 8][s % 8]);
    }
}

template <BlockDecoder D> void dequantize(const uint8_t *row, int64_t k, float *out) {
    for (int64_t at = 0; at < k; at += 256, row += D::group_bytes) {
        const int n = min(k - at, 256);
        uint8_t copy[D::group_bytes] = {}, codes[32];
        std::memcpy(copy, row, size_t(n) * D::group_bytes / 256);
        F8 s[2], minimum[2] = {};
        D::scale(copy, s);
        if constexpr (D::kHasMin) D::min(copy, minimum);
        for (int b = 0; b < n / 32; ++b) {
            store32(codes, D::codes(copy, b));
            dequantize_block<D>(codes, b, s, minimum, out + at + 32 * b);
        }
    }
}

}  // namespace
