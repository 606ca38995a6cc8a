// Absorbed latent attention over int8 entries, in products of bytes: four to a lane, where int16
// pairs are two.
//
// An entry's codes are read where they lie and meet the queries' codes. Every group of kLatentGroup
// columns has its own scales, so that a score is a sum over groups:
//
//   entry    | codes of group 0 | ... | codes of group n | scales | code sums | rope part: f16 |
//   query    | codes of group 0 | ... | codes of group n |          rope part: EntryOperand    |
//
//   score = sum over groups (codes . codes) * scale * scale + rope . rope
//
// Weights become bytes as well, a set for each group, since a value's scale belongs to its entry,
// which the second product sums over.
#pragma once

#include "runtime/native/flash/load_entries.hpp"
#include "runtime/native/flash/scratch_layout.hpp"

namespace {

constexpr int kLatentGroup = 128;  // codes that share a scale; as bind/arrays.hpp has it
// Entries of a block: values of 512 columns are 64 KB, within a second-level cache; of one panel of
// 64 columns 8 KB, within a first-level cache while queries pass over them.
constexpr int kLatentBlock = 128;
constexpr int kGroupWords = kLatentGroup / 4, kBlockWords = kLatentBlock / 4;

// Keys, as they lie in the cache, times queries.
template <class D> struct KeyByteOperand {
    typedef int32_t Word;
    typedef I V;
    static INLINE I dot(I total, I key, I query) { return D::dot(total, query, key); }
    static INLINE F value(I total) { return to_float(total); }
};

// Weights of four entries times their values.
template <class D> struct ValueByteOperand {
    typedef int32_t Word;
    typedef I V;
    static INLINE I dot(I total, I weights, I values) { return D::dot(total, weights, values); }
    static INLINE F value(I total) { return to_float(total); }
};

template <class D> class FlashInt8Latents {
  public:
    static bool supports(const AttentionTask &task) {
        const bool aligned =
            task.keys.stride % 4 == 0 && reinterpret_cast<uintptr_t>(task.keys.data) % 4 == 0;
        return !task.rank && !task.keys.is_float32 && task.values.data == task.keys.data &&
               task.keys.group == kLatentGroup && aligned && task.keys.n_int8 == task.value_dim &&
               task.value_dim % kLatentGroup == 0;
    }

    FlashInt8Latents(const AttentionTask &task, uint8_t *memory)
        : task(task),
          n_groups(task.keys.n_groups()),
          scratch{memory},
          softmax(scratch.softmax(task, round_up(task.n_queries, kLanes), kLatentBlock)),
          ropes(scratch.columns<EntryOperand>(task.n_queries, task.dim - task.value_dim)) {
        queries = scratch.take<int32_t>(int64_t(ropes.columns) * task.value_dim / 4);
        query_scale = scratch.take<float>(ropes.columns * n_groups);
        rope_keys = scratch.take<EntryOperand::Word>(kLatentBlock * ropes.n_words);
        values = scratch.take<int32_t>(int64_t(kBlockWords) * task.value_dim);
        weights = scratch.take<int32_t>(kBlockWords * kAttnNR * n_groups);
        weight_scale = scratch.take<float>(kAttnNR * n_groups);
        entry_scale = scratch.take<float>(kLatentBlock * n_groups),
        entry_zero = scratch.take<float>(kLatentBlock * n_groups);
        largest_scale = scratch.take<float>(n_groups);
        space = scratch.take<uint8_t>(kLanes * task.value_dim +
                                      4 * EntryOperand::kPerWord * ropes.n_words);
    }

    size_t scratch_bytes() const { return scratch.used; }

    void run() {
        begin();
        const int64_t last_seen = task.first_seen + (task.n_queries - 1) / task.queries_per_token;
        const int64_t end = task.end < last_seen ? task.end : last_seen;
        for (int64_t first = task.begin; first < end; first += kLatentBlock) {
            const int n = min(end - first, kLatentBlock);
            entries = task.keys.data + first * task.keys.stride;
            load_scales(n);
            load_ropes(n);
            load_values(n);
            for (int query = softmax.first_panel(first); query < task.n_queries; query += kAttnNR) {
                score(n, query);
                for (int c = 0; c < min(ropes.columns - query, kAttnNR); c += kLanes)
                    weigh(first, n, query + c, c);
                add_values(n, query);
            }
        }
        softmax.finish();
        for (int i = 0; i < task.n_queries; ++i)
            sort_columns(task.out + int64_t(i) * task.value_stride);
    }

  private:
    void begin() {
        softmax.begin(ropes.columns);
        std::memset(task.out, 0, int64_t(task.n_queries) * task.value_stride * sizeof(float));
        float *row = reinterpret_cast<float *>(space);
        const int rope = task.dim - task.value_dim;
        ropes.pack(task.q + task.value_dim, task.n_queries, rope, task.dim, row,
                   rope_keys);  // room for kLanes rows
        for (int first = 0; first < ropes.columns; first += kLanes) pack_queries(first);
        for (float &x : ones) x = 1;
    }

    // kLanes queries as codes, a scale for each group, transposed: four codes of each query to a
    // word.
    void pack_queries(int first) {
        for (int i = 0; i < kLanes; ++i)
            for (int g = 0; g < n_groups; ++g) {
                uint8_t *to = space + i * task.value_dim + g * kLatentGroup;
                query_scale[g * ropes.columns + first + i] =
                    first + i < task.n_queries ? pack_group(first + i, g, to) : 0;
            }
        for (int i = 0; i < task.value_dim / 4; i += 4) {
            I four[4];
            transpose4x4(space + 4 * i, task.value_dim, four);
            int32_t *group = queries + i / kGroupWords * kGroupWords * ropes.columns;
            for (int j = 0; j < 4; ++j)
                store(group + in_panels(i % kGroupWords + j, first, kGroupWords, ropes.columns),
                      four[j]);
        }
    }

    float pack_group(int query, int group, uint8_t *to) const {
        const float *x = task.q + int64_t(query) * task.dim + group * kLatentGroup;
        const float scale = I16PairOperand::scale(x, kLatentGroup, 127),
                    inverse = inverse_of(scale);
        for (int i = 0; i < kLatentGroup; i += kLanes) {
            const I codes = (I)(load<F>(x + i) * inverse + kRoundMagic) + D::kZero;
            store(to + i, __builtin_convertvector(codes, Bytes));
        }
        return scale;
    }

    // Scales of the block's entries, and what the zero of a query's codes adds to their products.
    void load_scales(int n) {
        std::memset(largest_scale, 0, n_groups * sizeof(float));
        for (int r = 0; r < n; ++r) {
            const uint8_t *row = entries + r * task.keys.stride;
            for (int g = 0; g < n_groups; ++g) {
                const float scale = half_at(row + task.keys.scales_at(), g);
                entry_scale[g * kLatentBlock + r] = scale;
                entry_zero[g * kLatentBlock + r] =
                    float(D::kZero * load<int16_t>(row + task.keys.sums_at() + 2 * g));
                largest_scale[g] = max(largest_scale[g], scale);
            }
        }
    }

    void load_ropes(int n) {
        const int rope = task.dim - task.value_dim, padded = EntryOperand::kPerWord * ropes.n_words;
        for (int r = 0; r < n; ++r) {
            const uint16_t *halves = reinterpret_cast<const uint16_t *>(
                entries + r * task.keys.stride + task.keys.f16_tail_at());
            rope_scale[r] =
                pack_f16_row<EntryOperand>(halves, rope, padded, rope_keys + r * ropes.n_words);
        }
    }

    // Four entries of a column to a word; beyond the last entry that one again, with weight 0.
    void load_values(int n) {
        for (int r = 0; r < n; r += 4) {
            for (int c = 0; c < task.value_dim; c += 4 * kLanes) {
                const uint8_t *four[4];
                for (int j = 0; j < 4; ++j)
                    four[j] = entries + min(r + j, n - 1) * task.keys.stride + c;
                I words[4];
                D::transpose_bytes(four, words);
                int32_t *group = values + c / kLatentGroup * kLatentGroup * kBlockWords;
                for (int j = 0; j < 4; ++j)
                    store(group + in_panels(r / 4, c % kLatentGroup + j * kLanes, kBlockWords,
                                            kLatentGroup),
                          words[j]);
            }
        }
    }

    void score(int n, int query) {
        const int columns = min(ropes.columns - query, kAttnNR);
        const uint8_t *next = entries + kLatentBlock * task.keys.stride;
        for (int g = 0; g < n_groups; ++g) {
            const OperandA<KeyByteOperand<D>> key{
                reinterpret_cast<const int32_t *>(entries + g * kLatentGroup), task.keys.stride / 4,
                1, next + g * kLatentGroup * kAttnTallMR, task.keys.stride};
            const OperandB<KeyByteOperand<D>> some{
                queries + (g * ropes.columns + query) * kGroupWords, kGroupWords, columns};
            const float *scale = query_scale + g * ropes.columns + query;
            const float *of_entry = entry_scale + g * kLatentBlock,
                        *zero = entry_zero + g * kLatentBlock;
            multiply<KeyByteOperand<D>>(n, kGroupWords, key, some, [&](int r, int c, F x) {
                add_score(r, c, (x - zero[r]) * (load<F>(scale + c) * of_entry[r]), g == 0);
            });
        }
        OperandB<EntryOperand> some = ropes.from(query);
        some.columns = columns;
        const OperandA<EntryOperand> rope{rope_keys, ropes.n_words, 1,
                                          next + task.value_dim * kAttnTallMR, task.keys.stride};
        multiply<EntryOperand>(n, ropes.n_words, rope, some, [&](int r, int c, F x) {
            add_score(r, c, x * (load<F>(ropes.scale + query + c) * rope_scale[r]), false);
        });
    }

    INLINE void add_score(int r, int c, F x, bool first) {
        float *to = softmax.scores + r * kAttnNR + c;
        store(to, first ? x : load<F>(to) + x);
    }

    // Weights of kLanes queries as bytes, times the entries' scales of each group.
    void weigh(int64_t first, int n, int query, int column) {
        const F largest = softmax.update(first, n, query, column, ones);
        for (int g = 0; g < n_groups; ++g) {
            const F scale = largest * (largest_scale[g] / float(D::kLargest));
            const F inverse = scale > broadcast(1e-30f) ? 1.0f / scale : F{};
            store(weight_scale + g * kAttnNR + column, scale);
            int32_t *to = weights + g * kBlockWords * kAttnNR + column;
            for (int r = 0; r < n; r += 4, to += kAttnNR)
                store(to, four_weights(r, n, column, entry_scale + g * kLatentBlock, inverse));
        }
    }

    I four_weights(int r, int n, int column, const float *of_entry, F inverse) const {
        I word{};
        for (int j = 0; j < 4 && r + j < n; ++j) {
            const F weight =
                load<F>(softmax.scores + (r + j) * kAttnNR + column) * (inverse * of_entry[r + j]);
            word |= ((I)(weight + kRoundMagic) & 0xff) << (8 * j);
        }
        return word;
    }

    void add_values(int n, int query) {
        for (int g = 0; g < n_groups; ++g) {
            const OperandA<ValueByteOperand<D>> weight{weights + g * kBlockWords * kAttnNR, 1,
                                                       kAttnNR};
            const OperandB<ValueByteOperand<D>> value{values + g * kLatentGroup * kBlockWords,
                                                      kBlockWords, kLatentGroup};
            const float *scale = weight_scale + g * kAttnNR;
            float *out = task.out + int64_t(query) * task.value_stride + g * kLatentGroup;
            multiply<ValueByteOperand<D>>(min(task.n_queries - query, kAttnNR), (n + 3) / 4, weight,
                                          value, [&](int r, int c, F x) {
                                              float *to = out + r * task.value_stride + c;
                                              store(to,
                                                    load<F>(to) * softmax.alpha[r] + x * scale[r]);
                                          });
        }
    }

    // transpose_bytes leaves columns 16 l + 4 i + 0 .. 3 in quarter l of register i: puts them in
    // order.
    void sort_columns(float *row) const {
        for (int c = 0; c < task.value_dim; c += 4 * kLanes) {
            float four[4 * kLanes];
            std::memcpy(four, row + c, sizeof four);
            for (int i = 0; i < 4; ++i)
                for (int l = 0; l < kLanes / 4; ++l)
                    std::memcpy(row + c + 16 * l + 4 * i, four + i * kLanes + 4 * l,
                                4 * sizeof(float));
        }
    }

    const AttentionTask &task;
    int n_groups;
    ScratchLayout scratch;
    OnlineSoftmax softmax;
    PackedColumns<EntryOperand> ropes;  // of the queries
    int32_t *queries;                   // (n_groups, kGroupWords, columns)
    float *query_scale;                 // (n_groups, columns)
    const uint8_t *entries;             // of the block
    float *entry_scale, *entry_zero;    // (n_groups, kLatentBlock)
    float *largest_scale;               // (n_groups): of a block's entries
    EntryOperand::Word *rope_keys;      // (kLatentBlock, ropes.n_words)
    int32_t *values;                    // (n_groups, kBlockWords, kLatentGroup)
    int32_t *weights;                   // (n_groups, kBlockWords, kAttnNR)
    float *weight_scale;                // (n_groups, kAttnNR)
    uint8_t *space;
    float rope_scale[kLatentBlock], ones[kLatentBlock];
};

}  // namespace
