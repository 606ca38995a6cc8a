// Packed panels: kNR rows x kKC columns of a weight, unpacked to bytes and transposed, as the tiles
// of gemm.hpp read them; and the prefetching of the next one.
//
// A register holds four consecutive codes of each of kLanes rows, so that one instruction adds four
// products to each row's sum and no sum ever crosses lanes:
//
//   codes[i]:   row 0: c[4i .. 4i+3] | row 1: c[4i .. 4i+3] | ... | row kNR-1: c[4i .. 4i+3]
//   scale[b]:   row 0                | row 1                | ... | row kNR-1         of block b
#pragma once

#include "runtime/native/gemm/gemv.hpp"

namespace {

// NR of BLIS: kNRVectors registers of rows.
constexpr int kNR = kNRVectors * kLanes;

// KC of BLIS: with AVX-512, 32 x 1024 codes are 32 KB and their scales 4 KB, about a first-level
// data cache (32 to 48 KB), where the panel stays while all tokens pass. Beginning a tile costs as
// much as one and a half of its 32 blocks: panels of 512 columns were 4 % slower.
constexpr int kKC = 1024;

// Of one thread; gemm_scratch_bytes has room for it and for kNR sums per token.
struct Panel {
    uint8_t codes[kKC / 4][kNR][4];
    float scale[kKC / 16][kNR], minimum[kKC / 16][kNR];  // of 16 columns each, or of 32
};
static_assert(sizeof(Panel) <= 64 * 1024 && kNR <= sprat::kMaxNR,
              "gemm_scratch_bytes is too small");

// A group of each of kLanes rows.
struct RowGroups {
    const uint8_t *first;
    size_t stride;

    const uint8_t *operator[](int row) const { return first + row * stride; }
};

// Eight values of each of kLanes rows, to kLanes values of each of eight blocks.
INLINE void transpose_scales(const F8 *values, size_t stride, float *out) {
    for (int i = 0; i < 8; i += 4) {
        I four[4];
        transpose4x4(reinterpret_cast<const uint8_t *>(values) + 4 * i, stride, four);
        for (int j = 0; j < 4; ++j) store(out + (i + j) * kNR, four[j]);
    }
}

template <class D> void unpack_scales(RowGroups g, int group, int row, Panel &panel) {
    F8 scale[kLanes][2], minimum[kLanes][2];
    for (int r = 0; r < kLanes; ++r) {
        D::scale(g[r], scale[r]);
        if constexpr (D::kHasMin) D::min(g[r], minimum[r]);
    }
    for (int i = 0; i < kScales<D>; i += 8) {
        const int at = group * kScales<D> + i;
        transpose_scales(scale[0] + i / 8, sizeof scale[0], panel.scale[at] + row);
        if constexpr (D::kHasMin)
            transpose_scales(minimum[0] + i / 8, sizeof minimum[0], panel.minimum[at] + row);
    }
}

// Packed nibbles are transposed before they are taken apart: half as many bytes to move.
template <class D> void unpack_nibbles(RowGroups g, int group, int row, Panel &panel) {
    constexpr int kSpan = D::kPackedBlocks;
    for (int i = 0; i < 8; ++i) {
        I four[4];
        transpose4x4(g.first + D::packed(i), g.stride, four);
        interleave_rows(four);
        const int low = group * 64 + i / kSpan * 8 * kSpan + i % kSpan * 4, high = low + 4 * kSpan;
        for (int j = 0; j < 4; ++j) {
            store(panel.codes[low + j][row], four[j] & 0x0f0f0f0f);
            store(panel.codes[high + j][row], four[j] >> 4 & 0x0f0f0f0f);
        }
    }
}

template <class D> void unpack_chunks(RowGroups g, int group, int row, Panel &panel) {
    uint8_t codes[kLanes][256];
    for (int r = 0; r < kLanes; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < 8 / kChunkBlocks; ++c)
            store(codes[r] + 32 * kChunkBlocks * c, as_unsigned<D::kSigned>(chunk<D>(g[r], c)));
    for (int column = 0; column < 64; column += 4) {
        I four[4];
        transpose4x4(codes[0] + 4 * column, 256, four);
        interleave_rows(four);
        for (int j = 0; j < 4; ++j) store(panel.codes[group * 64 + column + j][row], four[j]);
    }
}

// The columns from group `first` on. Decoders read whole groups of all rows: where the weights end
// before, of a copy.
template <class D> void unpack(const GemmTask &task, int row, int64_t first, Panel &panel) {
    const size_t end = min(task.row_bytes, (first + kKC / 256) * D::group_bytes);
    uint8_t copy[kNR][D::group_bytes];
    int group = 0;
    for (size_t at = first * D::group_bytes; at < end; at += D::group_bytes, ++group) {
        RowGroups g{task.weights + row * task.row_bytes + at, task.row_bytes};
        if (g[kNR - 1] + D::group_bytes > task.weights + task.n_rows * task.row_bytes) {
            std::memset(copy, 0, sizeof copy);
            const size_t n_bytes = min(end - at, D::group_bytes);
            for (int r = 0; r < min(kNR, task.n_rows - row); ++r)
                std::memcpy(copy[r], g[r], n_bytes);
            g = {copy[0], D::group_bytes};
        }
        for (int r = 0; r < kNR; r += kLanes) {
            const RowGroups some{g[r], g.stride};
            unpack_scales<D>(some, group, r, panel);
            if constexpr (requires { D::packed(0); }) unpack_nibbles<D>(some, group, r, panel);
            else unpack_chunks<D>(some, group, r, panel);
        }
    }
}

// The packed bytes of the panel that comes next, fetched line by line while tokens pass over this
// one. Asked for at once, most of its lines are dropped (a core has ten to twenty line fill
// buffers), and the hardware prefetcher stops at the end of each row's few hundred bytes. On a Zen
// 4, 48 tokens went from 226 to 300 GOP/s with weights in memory (docs/speed.md).
struct NextPanel {
    const uint8_t *at;
    size_t row_bytes;
    int row_lines;
};

// Behind the last panel of a task comes the first of the task that the thread does next.
template <class D> NextPanel next_panel(const GemmTask &task, int row, int column) {
    column += kKC;
    if (column >= task.input->k) row += kNR, column = 0;
    const uint8_t *rows = row < task.n_rows ? task.weights + row * task.row_bytes : task.next;
    return {rows + column / 256 * D::group_bytes, task.row_bytes,
            (kKC / 256 * D::group_bytes + 63) / 64};
}

// The lines that the tile of tokens first .. last - 1 fetches, spread evenly over its blocks.
class PanelPrefetcher {
  public:
    PanelPrefetcher(const NextPanel &panel, int first, int last, int n_tokens, int n_blocks)
        : row_lines_(panel.row_lines), skipped_(panel.row_bytes - panel.row_lines * 64) {
        const int n_lines = kNR * row_lines_, line = first * n_lines / n_tokens;
        left_ = last * n_lines / n_tokens - line;
        per_block_ = (left_ + n_blocks - 1) / n_blocks;
        at_ = panel.at + line / row_lines_ * panel.row_bytes + line % row_lines_ * 64;
        in_row_ = row_lines_ - line % row_lines_;
    }

    INLINE void step() {
        for (int i = min(per_block_, left_); i > 0; --i, --left_, at_ += 64) {
            __builtin_prefetch(at_);
            if (--in_row_ == 0) at_ += skipped_, in_row_ = row_lines_;
        }
    }

  private:
    const uint8_t *at_;
    int row_lines_, in_row_, left_, per_block_;
    int64_t skipped_;
};

}  // namespace
