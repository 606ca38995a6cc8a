// FlashAttention (arXiv 2205.14135) over a range of KV entries: scores exist only as long as their
// block.
//
// All queries of a task share each block of entries: it is packed to words once, and two products
// do the rest. For absorbed latent attention the queries are all heads of a token (one pass over
// the latents), for grouped-query attention the heads that share a key head. Queries lie along the
// lanes, so that the softmax needs no sum across them.
//
//   for each block of kBlockEntries entries:
//       keys (n, dim), values (n, value_dim)         packed to words
//       scores (n, queries)  = keys . queries        multiply()
//       weights p            = online softmax        OnlineSoftmax::update()
//       out (queries, value) = out * alpha + p . values
#pragma once

#include "runtime/native/flash/load_entries.hpp"
#include "runtime/native/flash/scratch_layout.hpp"

namespace {

// Keys of 576 elements and values of 512 in int16 (DeepSeek's latents): 64 of both are 136 KB,
// within a second-level cache of 256 KB or more, where they stay while all panels of queries pass.
constexpr int kBlockEntries = 64;
// With one panel of queries a key is read once: 16 of 576 elements are 18 KB, so that they are
// packed and multiplied before they leave the first-level cache. At least kLanes (see begin()).
constexpr int kKeyBatch = 16;
static_assert(kKeyBatch >= kLanes && kBlockEntries % kKeyBatch == 0);

// One task. W is the operand type of its products.
template <class W> class Flash {
  public:
    typedef typename W::Word Word;

    Flash(const AttentionTask &task, uint8_t *memory)
        : task(task),
          scratch{memory},
          softmax(scratch.softmax(task, round_up(task.n_queries, kLanes), kBlockEntries)) {
        n_words = round_up(task.dim, kLanes * W::kPerWord) / W::kPerWord;
        entry_width =
            round_up(task.rank ? task.rank + task.dim - task.nope : task.dim, kLanes * W::kPerWord);
        value_width = round_up(task.value_stride, kLanes * W::kPerWord);
        queries = scratch.columns<W>(task.n_queries, task.dim);
        step = one_panel() ? kKeyBatch : kBlockEntries;
        keys = scratch.take<Word>(int64_t(step) * n_words);
        values = scratch.take<Word>(int64_t(kBlockEntries) * task.value_stride / W::kPerWord);
        weights = scratch.take<Word>(kBlockEntries * kAttnNR / W::kPerWord);
        value_words = scratch.take<Word>(value_width);
        row = scratch.take<float>(entry_width + n_words * W::kPerWord + value_width);
        if (task.rank) lay_out_expansion();
    }

    size_t scratch_bytes() const { return scratch.used; }

    void run() {
        begin();
        const int64_t last_seen = task.first_seen + (task.n_queries - 1) / task.queries_per_token;
        const int64_t end = task.end < last_seen ? task.end : last_seen;
        for (int64_t first = task.begin; first < end; first += kBlockEntries) {
            if (task.stops && task.stops(task.pool)) break;
            const int n = min(end - first, kBlockEntries);
            value_scales = 0;
            if (task.rank) expand(first, n);
            for (int r = 0; r < n; r += step) {
                pack_entries(first, r, min(n - r, step));
                if (one_panel()) score(first, r, min(n - r, step), 0);
            }
            attend_block(first, n);
        }
        softmax.finish();
    }

  private:
    bool one_panel() const { return queries.columns <= kAttnNR; }

    void lay_out_expansion() {
        k_b = scratch.columns<W>(task.nope, task.rank),
        v_b = scratch.columns<W>(task.value_dim, task.rank);
        latents = scratch.take<Word>(int64_t(kBlockEntries) * k_b.n_words);
        key_rows = scratch.take<float>(int64_t(kBlockEntries) * n_words * W::kPerWord);
        value_rows = scratch.take<float>(int64_t(kBlockEntries) * value_width);
    }

    void begin() {
        softmax.begin(queries.columns);
        std::memset(task.out, 0, int64_t(task.n_queries) * task.value_stride * sizeof(float));
        queries.pack(task.q, task.n_queries, task.dim, task.dim, row,
                     keys);  // `keys` has room for kLanes rows
        if (task.rank) {
            std::memset(value_rows, 0, int64_t(kBlockEntries) * value_width * sizeof(float));
            k_b.pack(task.k_bt, task.nope, task.rank, task.rank, row, latents);
            v_b.pack(task.v_b, task.value_dim, task.rank, task.rank, row, latents);
        }
    }

    // This head's keys [k_b . latent, rope] and values v_b . latent of the block, in float32.
    void expand(int64_t first, int n) {
        const int rope = task.dim - task.nope, key_stride = n_words * W::kPerWord;
        float scale[kBlockEntries];
        for (int r = 0; r < n; ++r) {
            float *to = key_rows + int64_t(r) * key_stride;
            load_entry(task.keys, first + r, task.rank + rope, row, entry_width);
            std::memcpy(to + task.nope, row + task.rank, rope * sizeof(float));
            std::memset(to + task.dim, 0, (key_stride - task.dim) * sizeof(float));
            std::memset(row + task.rank, 0, (entry_width - task.rank) * sizeof(float));
            scale[r] = pack_row<W>(row, k_b.n_words * W::kPerWord, kCodeLimit,
                                   latents + int64_t(r) * k_b.n_words);
        }
        const OperandA<W> a{latents, k_b.n_words, 1};
        multiply<W>(n, k_b.n_words, a, k_b.from(0), [&](int r, int c, F x) {
            const F elements = x * (load<F>(k_b.scale + c) * scale[r]);
            std::memcpy(key_rows + int64_t(r) * key_stride + c, &elements,
                        min(task.nope - c, kLanes) * sizeof(float));
        });
        multiply<W>(n, v_b.n_words, a, v_b.from(0), [&](int r, int c, F x) {
            store(value_rows + int64_t(r) * value_width + c,
                  x * (load<F>(v_b.scale + c) * scale[r]));
        });
    }

    // Entry `r` of the block as words; returns its scale.
    float pack_key(int64_t first, int r, Word *to) {
        const int padded = n_words * W::kPerWord;
        if (task.rank) return pack_row<W>(key_rows + int64_t(r) * padded, padded, kCodeLimit, to);
        return pack_entry<W>(task.keys, first + r, task.dim, padded, row, to);
    }
    float pack_value(int64_t first, int r, Word *to) {
        if (task.rank)
            return pack_row<W>(value_rows + int64_t(r) * value_width, value_width, kCodeLimit, to);
        return pack_entry<W>(task.values, first + r, task.value_dim, value_width, row, to);
    }

    // Entries `start` .. `start + n` of the block.
    void pack_entries(int64_t first, int start, int n) {
        const bool shared = !task.rank && task.values.data == task.keys.data;
        for (int r = start; r < start + n; r += W::kPerWord) {
            const Word *value[W::kPerWord];
            for (int j = 0; j < W::kPerWord; ++j) {
                const int at = min(
                    r + j, start + n - 1);  // an odd last one is paired with itself, with weight 0
                Word *key = keys + int64_t(at - start) * n_words,
                     *to = value_words + j * value_width / W::kPerWord;
                key_scale[at] = pack_key(first, at, key);
                value_scale[at] = shared ? key_scale[at] : pack_value(first, at, to);
                value_scales += value_scale[at];
                value[j] = shared ? key : to;
            }
            store_values(value, r / W::kPerWord);
        }
    }

    // kPerWord packed entries to where the second product reads them: a word to each column.
    void store_values(const Word *const *entries, int word) {
        for (int c = 0; c < task.value_stride; c += kAttnNR) {
            const Word *from[W::kPerWord];
            for (int j = 0; j < W::kPerWord; ++j) from[j] = entries[j] + c / W::kPerWord;
            Word *to = values + in_panels(word, c, kBlockEntries / W::kPerWord, task.value_stride);
            const int width = task.value_stride - c;
#pragma GCC unroll 4
            for (int v = 0; v < kAttnNR; v += kLanes)
                if (v < width) store(to + v, W::transpose(from, v));
        }
    }

    // Scores of a panel of queries from `query` on with entries `start` .. `start + n` of the
    // block.
    void score(int64_t first, int start, int n, int query) {
        const uint8_t *ahead = task.keys.data + (first + start + kBlockEntries) * task.keys.stride;
        const OperandA<W> key{keys, n_words, 1, ahead, 4 * n_words};
        OperandB<W> some = queries.from(query);
        some.columns = min(some.columns, kAttnNR);
        multiply<W>(n, n_words, key, some, [&](int r, int c, F x) {
            store(softmax.scores + (start + r) * kAttnNR + c,
                  x * (load<F>(queries.scale + query + c) * key_scale[start + r]));
        });
    }

    void attend_block(int64_t first, int n) {
        const OperandA<W> weight{weights, 1, kAttnNR};
        const OperandB<W> value{values, kBlockEntries / W::kPerWord, task.value_stride};
        for (int query = softmax.first_panel(first); query < task.n_queries; query += kAttnNR) {
            if (!one_panel()) score(first, 0, n, query);
            const int columns = min(queries.columns - query, kAttnNR);
            for (int c = 0; c < columns; c += kLanes) weigh(first, n, query + c, c);
            const int n_rows = min(task.n_queries - query, kAttnNR),
                      depth = (n + W::kPerWord - 1) / W::kPerWord;
            multiply<W>(n_rows, depth, weight, value, [&](int r, int c, F x) {
                float *to = task.out + int64_t(query + r) * task.value_stride + c;
                store(to, load<F>(to) * softmax.alpha[r] + x * weight_scale[r]);
            });
        }
    }

    // Weights of kLanes queries, packed; the scales of values are part of them. A maximum drops
    // NaN: the sum of these scales brings it back.
    void weigh(int64_t first, int n, int query, int column) {
        const F largest = softmax.update(first, n, query, column, value_scale);
        const F scale =
            W::scale(largest, code_limit(kBlockEntries)) + (value_scales - value_scales);
        const F inverse = scale > broadcast(1e-30f) ? 1.0f / scale : F{};
        store(weight_scale + column, scale);
        for (int r = 0; r < n; r += W::kPerWord) {
            F elements[W::kPerWord];
            for (int j = 0; j < W::kPerWord; ++j)
                elements[j] = r + j < n
                                  ? load<F>(softmax.scores + (r + j) * kAttnNR + column) * inverse
                                  : F{};
            store(weights + r / W::kPerWord * kAttnNR + column, W::pack(elements));
        }
    }

    const AttentionTask &task;
    ScratchLayout scratch;
    OnlineSoftmax softmax;
    int n_words, entry_width;            // of a key in words, and of an entry in elements
    int step;                            // entries that are packed at a time
    int value_width;                     // value_stride in whole registers of words
    PackedColumns<W> queries, k_b, v_b;  // the latter two of expanded attention only
    Word *keys;                          // (step, n_words)
    Word *values;                        // (kBlockEntries / kPerWord, value_stride), in panels
    Word *weights;                       // (kBlockEntries / kPerWord, kAttnNR)
    Word *value_words;                   // (kPerWord, value_width / kPerWord)
    float *row;                          // one entry in float32, a key or a value
    Word *latents = nullptr;             // (kBlockEntries, k_b.n_words)
    float *key_rows = nullptr;           // (kBlockEntries, n_words * kPerWord)
    float *value_rows = nullptr;         // (kBlockEntries, value_width)
    float key_scale[kBlockEntries], value_scale[kBlockEntries];
    float value_scales;  // the sum of the block's: infinite or NaN when one of them is
    float weight_scale[kAttnNR];
};

}  // namespace
