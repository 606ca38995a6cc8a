// Every instruction set against plain C++, without Python: what runs under qemu and the sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/native/kernels.hpp"
#include "runtime/native/route.hpp"

using namespace sprat;

namespace {

// Offsets of a block's binary16 fields, which must stay finite.
std::vector<int> halves_of(Format format) {
    switch (format) {
        case F32:
        case BF16:
        case MXFP4:
        case NVFP4:
            return {};
        case Q4_1:
        case Q5_1:
        case Q4_K:
        case Q5_K:
            return {0, 2};
        case Q6_K:
            return {208};
        case Q3_K:
            return {108};
        case Q2_K:
            return {80, 82};
        default:
            return {0};
    }
}

std::mt19937 generator(1);
int failures = 0;

std::vector<float> normals(size_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> out(n);
    for (float &x : out) x = normal(generator);
    return out;
}

std::vector<uint8_t> blocks(Format format, int64_t rows, int64_t k) {
    const BlockLayout &layout = kLayouts[format];
    std::vector<uint8_t> out(size_t(rows * k) / layout.block_size * layout.block_bytes);
    for (uint8_t &byte : out) byte = uint8_t(generator());
    for (size_t at = 0; at < out.size(); at += layout.block_bytes) {
        const float number = float(generator() % 1000) / 500 - 1;
        const uint16_t half = uint16_t(0x2800 | (generator() & 0x83ff));  // +-0.03 to 0.06
        if (format == F32) std::memcpy(&out[at], &number, 4);
        if (format == BF16) std::memcpy(&out[at], reinterpret_cast<const char *>(&number) + 2, 2);
        if (format == MXFP4) out[at] = uint8_t(120 + generator() % 8);  // an exponent
        for (int field : halves_of(format)) std::memcpy(&out[at + field], &half, 2);
    }
    return out;
}

void compare(const char *what, const Isa &isa, const std::vector<float> &found,
             const std::vector<float> &expected, float tolerance = 2e-5f) {
    float size = 0, error = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        size = std::fmax(size, std::fabs(expected[i]));
        error = std::isfinite(found[i]) ? std::fmax(error, std::fabs(found[i] - expected[i]))
                                        : INFINITY;
    }
    const bool good = error <= tolerance * size;
    failures += !good;
    if (!good)
        std::printf("%s on %s: error %g of %g\n", what, isa.name, double(error), double(size));
}

// Three groups of 256 elements, the last without a block where a block is shorter.
int64_t columns_of(Format format) {
    const int64_t block = std::max<int64_t>(32, int64_t(kLayouts[format].block_size));
    return block == 256 ? 768 : 768 - block;
}

std::vector<float> product(const Isa &isa, const Isa &quantizer, Format format,
                           const std::vector<uint8_t> &weights, const std::vector<float> &x,
                           int rows, int64_t k, int n, const int32_t *tokens = nullptr) {
    const int64_t padded = pad_to(k, 256);
    std::vector<uint8_t> records(n * padded * 3 / 2), scratch(gemm_scratch_bytes(n) + 64);
    std::vector<float> out(size_t(n) * rows);
    const Activations input{x.data(), k, {records.data(), padded}};
    for (int t = 0; t < n; ++t) quantizer.quantize(x.data() + t * k, k, input.quantized, t);
    GemmTask task{};
    task.weights = task.next = weights.data(), task.row_bytes = weights.size() / rows,
    task.n_rows = rows, task.input = &input;
    task.tokens = tokens, task.n_tokens = n, task.out = out.data(), task.out_stride = rows;
    task.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
    isa.gemm[format](task);
    return out;
}

// Attention of n queries over n_entries entries: of as many tokens, or, with values in entries of
// their own, of one token. Divided by l, so that it is the softmax's weighted mean.
std::vector<float> attention(const Isa &isa, const std::vector<float> &q, const KvEntries &keys,
                             int n, int dim, int value_dim, int n_entries,
                             const KvEntries *values = nullptr) {
    const int stride = int(pad_to(value_dim, 16));
    std::vector<float> out(size_t(n) * stride), m(n), l(n);
    AttentionTask task{};
    task.q = q.data(), task.n_queries = n, task.dim = dim, task.value_dim = value_dim;
    task.queries_per_token = values ? n : 1;
    task.first_seen = values ? n_entries : n_entries - n + 1, task.end = n_entries;
    task.keys = keys, task.values = values ? *values : keys;
    task.out = out.data(), task.m = m.data(), task.l = l.data(), task.value_stride = stride;
    std::vector<uint8_t> scratch(isa.attention_scratch_bytes(task) + 64);
    task.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
    isa.attend(task);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < stride; ++j) out[i * stride + j] /= l[i];
    return out;
}

// A record whose fields are what the test put in.
struct TestRecord : Record {
    std::map<std::string, Matrix> matrices;
    std::map<std::string, Vector> vectors;
    std::map<std::string, double> numbers;
    std::map<std::string, std::string> texts;
    std::map<std::string, RecordPtr> records;

    template <class Values> static auto found(const Values &values, const char *name) {
        const auto at = values.find(name);
        return at == values.end() ? typename Values::mapped_type{} : at->second;
    }
    Matrix matrix(const char *name) const override { return found(matrices, name); }
    Vector vector(const char *name) const override { return found(vectors, name); }
    double number(const char *name) const override { return numbers.at(name); }
    bool flag(const char *name) const override { return numbers.at(name) != 0; }
    std::string text(const char *name) const override { return texts.at(name); }
    RecordPtr record(const char *name) const override { return found(records, name); }
};

Matrix matrix(const std::vector<uint8_t> &bytes, Format format, int64_t slices, int64_t rows,
              int64_t cols) {
    return {bytes.data(), format, slices, rows, cols, bytes.size() / size_t(slices * rows)};
}

// Operations that are split over threads: grouped attention, both forms of latent attention,
// routing, experts. Everything again on plain C++.
void check_set(const Isa &isa, const Isa &plain, int n_threads) {
    KernelSet set(isa, n_threads, {}), one(plain, 1, {});
    const int64_t heads = 3, rank = 64, nope = 32, rope = 6, value = 40, n = 5, n_entries = 300;
    const auto k_b_bytes = blocks(Q8_0, heads * rank, nope),
               v_b_bytes = blocks(Q8_0, heads * value, rank);
    const Matrix k_b = matrix(k_b_bytes, Q8_0, heads, rank, nope),
                 v_b = matrix(v_b_bytes, Q8_0, heads, value, rank);
    const auto q = normals(size_t(n * heads * (nope + rope))),
               floats = normals(size_t(n_entries * (rank + rope)));
    const KvEntries entries{reinterpret_cast<const uint8_t *>(floats.data()), 4 * (rank + rope),
                            true, 0};
    const LatentKv latents{entries, n_entries, &k_b, &v_b};
    const auto both = [&](const char *what, size_t size, const auto &kernel) {
        std::vector<float> found(size), expected(size);
        kernel(set, found.data()), kernel(one, expected.data());
        compare(what, isa, found, expected,
                1e-2f);  // values half way between two int8 codes may round to either
    };
    both("absorbed", size_t(n * heads * value), [&](KernelSet &k, float *out) {
        k.attention.mla_absorbed(q.data(), n, nope + rope, latents, 0.1f, out);
    });
    both("expanded", size_t(n * heads * value), [&](KernelSet &k, float *out) {
        k.attention.mla_expanded(q.data(), n, nope + rope, latents, 0.1f, out);
    });
    const GroupedKv cache{entries, entries, 4 * 35,
                          4 * 35,  2,       n_entries};  // two key heads of 35 elements in each
    const auto grouped = normals(size_t(n) * 6 * 35);
    both("grouped", size_t(n) * 6 * 35, [&](KernelSet &k, float *out) {
        k.attention.gqa(grouped.data(), n, 6, 35, cache, 0.2f, out);
    });

    const int64_t hidden = 64, width = 96, n_experts = 8;
    const auto gate = blocks(Q4_0, n_experts * width, hidden),
               down = blocks(Q4_0, n_experts * hidden, width);
    const Matrix gates = matrix(gate, Q4_0, n_experts, width, hidden),
                 downs = matrix(down, Q4_0, n_experts, hidden, width);
    const auto x = normals(size_t(n * hidden)), logits = normals(size_t(n * n_experts));
    const MoeSpec spec{int(n_experts), 3, 4, 2, true, true, true, 2.5f};
    const Mlp routed{gates, gates, downs};
    both("experts", size_t(n * hidden), [&](KernelSet &k, float *out) {
        std::vector<int32_t> expert_ids(n * 3);
        std::vector<float> weights(n * 3);
        route(spec, logits.data(), nullptr, n, expert_ids.data(), weights.data());
        k.moe.experts(routed, nullptr, x.data(), n, expert_ids.data(), weights.data(), 3, out);
    });
}

// Sublayers, five tokens at depth 30, with KV entries in float32, float16 and int8.
void check_layers(const Isa &isa, const Isa &plain, int n_threads) {
    KernelSet set(isa, n_threads, {}), one(plain, 1, {});
    const int64_t hidden = 96, heads = 2, rank = 64, nope = 32, rope = 6, value = 32, n = 5,
                  n_past = 30;
    const auto weight = [](int64_t slices, int64_t rows, int64_t cols,
                           std::vector<uint8_t> &bytes) {
        bytes = blocks(Q8_0, slices * rows, cols);
        return matrix(bytes, Q8_0, slices, rows, cols);
    };
    std::vector<uint8_t> kept[8];
    const Matrix q = weight(1, heads * (nope + rope), hidden, kept[0]),
                 kv_a = weight(1, rank + rope, hidden, kept[1]);
    // Rotated elements as large as the others, which are normed: int16 pairs share a scale, and
    // some sets take float32 instead.
    for (size_t at = size_t(rank) * kv_a.row_bytes; at < kept[1].size(); at += 34)
        kept[1][at + 1] = uint8_t((kept[1][at + 1] & 0x83) | 0x14);  // d / 32
    const Matrix k_b = weight(heads, rank, nope, kept[2]),
                 v_b = weight(heads, value, rank, kept[3]);
    const Matrix output = weight(1, hidden, heads * value, kept[4]),
                 kv = weight(1, 32, hidden, kept[5]);
    const auto gain = normals(hidden), x = normals(size_t(n * hidden)), cos = normals(n * 16),
               sin = normals(n * 16);
    const auto vector = [](const std::vector<float> &values, int64_t size) {
        return Vector{values.data(), size};
    };
    const auto latent_fields = std::make_shared<TestRecord>(),
               grouped_fields = std::make_shared<TestRecord>();
    latent_fields->matrices = {
        {"q", q}, {"kv_a", kv_a}, {"k_b", k_b}, {"v_b", v_b}, {"output", output}};
    latent_fields->vectors = {{"norm", vector(gain, hidden)}, {"kv_a_norm", vector(gain, rank)}};
    latent_fields->numbers = {{"eps", 1e-6}, {"latent_eps", 1e-5}, {"scale", 1e-4}};
    const LatentAttention latent(latent_fields);
    const Matrix grouped_q = weight(1, 64, hidden, kept[7]);
    grouped_fields->matrices = {{"q", grouped_q}, {"k", kv}, {"v", kv}, {"output", output}};
    grouped_fields->vectors = {{"norm", vector(gain, hidden)},
                               {"k_bias", vector(gain, 32)},
                               {"q_norm", vector(gain, 32)},
                               {"k_norm", vector(gain, 32)}};
    grouped_fields->numbers = {{"eps", 1e-6}, {"scale", 0.2}, {"head_dim", 32}};
    const GroupedAttention grouped(grouped_fields);
    struct Storage {
        int64_t stride;
        bool is_float32;
        int n_int8;
    };
    for (const Storage &storage :
         {Storage{4 * 70, true, 0}, Storage{2 * 70, false, 0}, Storage{84, false, 64}}) {
        const auto both = [&](const char *what, const auto &kernel) {
            std::vector<float> found(x), expected(x);
            std::vector<uint8_t> first(2 * (n_past + n) * 4 * 70), second(first);
            const KvEntries entries{nullptr, storage.stride, storage.is_float32, storage.n_int8};
            kernel(set, found.data(), entries, first.data()),
                kernel(one, expected.data(), entries, second.data());
            compare(what, isa, found, expected, 1e-2f);
        };
        both("latent layer", [&](KernelSet &k, float *out, KvEntries entries, uint8_t *cache) {
            entries.data = cache;
            const KvBuffer buffer{entries, 0, n_past};
            k.attention.latent_attention(latent, out, n, {cos.data(), sin.data(), true},
                                         {&buffer, 1}, false);
        });
        both("grouped layer", [&](KernelSet &k, float *out, KvEntries entries, uint8_t *cache) {
            entries.data = cache, entries.n_int8 = std::min(entries.n_int8, 32);
            KvEntries values = entries;
            values.data += (n_past + n) * entries.stride;
            const KvBuffer key{entries, 0, n_past}, value{values, 0, n_past};
            k.attention.grouped_attention(grouped, out, n, {cos.data(), sin.data(), false},
                                          {&key, 1}, {&value, 1});
        });
    }
    std::vector<uint8_t> experts[3];
    const Matrix router = weight(1, 8, hidden, kept[6]), gate = weight(8, 160, hidden, experts[0]),
                 down = weight(8, hidden, 160, experts[1]);
    const auto moe_fields = std::make_shared<TestRecord>(), spec = std::make_shared<TestRecord>();
    const auto routed = std::make_shared<TestRecord>();
    routed->matrices = {{"gate", gate}, {"up", gate}, {"down", down}};
    spec->numbers = {{"n_routed_experts", 8},   {"n_experts_per_token", 8}, {"n_groups", 1},
                     {"n_groups_per_token", 1}, {"normalize", 1},           {"scaling", 1.5}};
    spec->texts = {{"scoring", "sigmoid"}, {"group_score", "max"}};
    moe_fields->matrices = {{"router", router}},
    moe_fields->records = {{"moe", spec}, {"routed", routed}};
    moe_fields->vectors = {{"norm", vector(gain, hidden)}}, moe_fields->numbers = {{"eps", 1e-6}};
    const Moe moe(moe_fields);
    std::vector<float> found(x),
        expected(x);  // all experts are chosen, so that rounding cannot change which
    set.moe.moe(moe, found.data(), n), one.moe.moe(moe, expected.data(), n);
    compare("MoE layer", isa, found, expected, 1e-2f);
}

// Rows that share a group of 256 elements, or fill it. The result of a single short one may be near
// 0, so the error of all rows of a length is held against the largest result among them.
void check_short_rows(const Isa &isa, const Isa &plain) {
    for (int f = 0; f < N_FORMATS; ++f)
        for (int k : {32, 64, 96, 128, 256}) {
            if (k % kLayouts[f].block_size) continue;
            std::vector<float> found, expected;
            for (int rows : {1, 2, 19, 32}) {
                const auto weights = blocks(Format(f), rows, k);
                for (int n : {1, 4, 6, 15}) {
                    const auto x = normals(size_t(n * k));
                    const auto here = product(isa, plain, Format(f), weights, x, rows, k, n);
                    const auto there = product(plain, plain, Format(f), weights, x, rows, k, n);
                    found.insert(found.end(), here.begin(), here.end());
                    expected.insert(expected.end(), there.begin(), there.end());
                }
            }
            compare(kLayouts[f].name, isa, found, expected);
        }
}

void check_products(const Isa &isa, const Isa &plain) {
    for (int f = 0; f < N_FORMATS; ++f) {
        const int64_t k = columns_of(Format(f));
        for (int rows : {1, 2, 19, 32}) {
            const auto weights = blocks(Format(f), rows, k);
            for (int n : {1, 4, 6, 15}) {
                const auto x = normals(size_t(n * k));
                compare(kLayouts[f].name, isa,
                        product(isa, plain, Format(f), weights, x, rows, k, n),
                        product(plain, plain, Format(f), weights, x, rows, k, n));
            }
        }
    }
}

// More rows, columns and tokens than a block of a product holds, in order and listed from the last
// to the first, against the same tokens a few at a time.
void check_blocks(const Isa &isa) {
    const int rows = 75, k = 1280, n = 205, few = 41;
    for (Format f : {Q4_0, Q8_0, Q4_K, Q6_K, Q2_K}) {
        const auto weights = blocks(f, rows, k);
        const auto x = normals(size_t(n) * k);
        std::vector<float> expected, found = product(isa, isa, f, weights, x, rows, k, n);
        for (int t = 0; t < n; t += few) {
            const std::vector<float> some(x.begin() + t * k, x.begin() + (t + few) * k);
            const auto out = product(isa, isa, f, weights, some, rows, k, few);
            expected.insert(expected.end(), out.begin(), out.end());
        }
        compare("blocks of tokens", isa, found, expected);
        std::vector<int32_t> tokens;
        for (int t = 0; t < n; ++t) tokens.push_back(n - 1 - t);
        const auto listed = product(isa, isa, f, weights, x, rows, k, n, tokens.data());
        for (int t = 0; t < n; ++t)
            std::copy_n(&listed[size_t(n - 1 - t) * rows], rows, &found[size_t(t) * rows]);
        compare("blocks of listed tokens", isa, found, expected);
    }
}

// Entries of 70 elements in float32, float16 and int8.
void check_attention(const Isa &isa, const Isa &plain) {
    for (int n : {1, 7, 40}) {
        auto q = normals(size_t(n) * 70), floats = normals(200 * 70);
        for (float &x : q)
            x *= 0.1f;  // scores of a model's size: larger ones would magnify each rounding
        const auto halves = blocks(F16, 200, 70);
        std::vector<uint8_t> int8(200 *
                                  84);  // 64 codes, two scales and sums, 6 elements in float16
        const KvEntries int8_entries{int8.data(), 84, false, 64};
        for (int r = 0; r < 200; ++r) store_entry(int8_entries, r, &floats[r * 70], 70);
        const KvEntries in_float32{reinterpret_cast<const uint8_t *>(floats.data()), 4 * 70, true,
                                   0};
        const KvEntries in_float16{halves.data(), 2 * 70, false, 0};
        for (const KvEntries &keys : {in_float32, in_float16, int8_entries})
            for (const KvEntries *values : {(const KvEntries *)nullptr, &in_float32})
                compare("attention", isa, attention(isa, q, keys, n, 70, 33, 200, values),
                        attention(plain, q, keys, n, 70, 33, 200, values),
                        keys.is_float32 ? 2e-5f : 2e-3f);
    }
}

// Latents of 256 elements in int8, in groups of 128, and 6 that are rotated.
void check_latents(const Isa &isa, const Isa &plain) {
    for (int n : {1, 7, 40}) {
        auto q = normals(size_t(n) * 262), floats = normals(200 * 262);
        for (float &x : q) x *= 0.05f;
        std::vector<uint8_t> latents(200 * 276);
        const KvEntries entries{latents.data(), 276, false, 256, 128};
        for (int r = 0; r < 200; ++r) store_entry(entries, r, &floats[r * 262], 262);
        // Queries and weights in 8 bits, or 7 where both factors are signed: 0.0215 was the largest
        // error found, on NEON.
        compare("latents", isa, attention(isa, q, entries, n, 262, 256, 199),
                attention(plain, q, entries, n, 262, 256, 199), 4e-2f);
    }
}

void expect_bad(const char *what, const Isa &isa, const float *values, int64_t n, bool all) {
    const auto is_bad = [](float x) { return !std::isfinite(x); };
    if (all ? std::all_of(values, values + n, is_bad) : std::any_of(values, values + n, is_bad))
        return;
    ++failures, std::printf("%s on %s: a bad value is lost\n", what, isa.name);
}

// NaN and infinity in one activation reach all products with it.
void check_bad_activations(const Isa &isa, float bad) {
    for (int f = 0; f < N_FORMATS; ++f) {
        const int64_t k = columns_of(Format(f));
        const auto weights = blocks(Format(f), 19, k);
        for (int n : {1, 2, 9})
            for (int64_t place = 0; place < k; place += 23) {
                auto x = normals(size_t(n * k));
                x[size_t((n - 1) * k + place)] = bad;
                const auto out = product(isa, isa, Format(f), weights, x, 19, k, n);
                expect_bad(kLayouts[f].name, isa, &out[size_t(n - 1) * 19], 19, true);
            }
    }
    std::vector<float> x = normals(70), gain(70, 1.0f), out(70);
    x[33] = bad;
    isa.rms_norm(x.data(), gain.data(), 1e-6f, 70, out.data());
    expect_bad("RMSNorm", isa, out.data(), 70, false);
    std::fill(x.begin(), x.end(), 1e30f);
    isa.rms_norm(x.data(), gain.data(), 1e-6f, 70, out.data());
    expect_bad("overflow of RMSNorm", isa, out.data(), 70, true);
}

// And in one element of a key or a value, all queries that see it. Entries have 256 elements that
// int8 keeps as codes, and 6 others.
void check_bad_entries(const Isa &isa, float bad) {
    const int dim = 262, n_entries = 200;
    for (int place : {0, 131, 250, 261}) {
        auto good = normals(n_entries * dim), floats = good;
        floats[size_t(50 * dim + place)] = bad;
        std::vector<uint8_t> halves(n_entries * 2 * dim), latents(n_entries * 276);
        const KvEntries in_float32{reinterpret_cast<const uint8_t *>(floats.data()), 4 * dim, true,
                                   0};
        const KvEntries in_float16{halves.data(), 2 * dim, false, 0};
        const KvEntries in_int8{latents.data(), 276, false, 256, 128};
        const KvEntries good_keys{reinterpret_cast<const uint8_t *>(good.data()), 4 * dim, true, 0};
        for (int r = 0; r < n_entries; ++r)
            for (const KvEntries &entries : {in_float16, in_int8})
                store_entry(entries, r, &floats[size_t(r) * dim], dim);
        for (int n : {1, 3, 40}) {
            auto q = normals(size_t(n) * dim);
            for (float &x : q) x *= 0.05f;
            const auto check = [&](const KvEntries &keys, const KvEntries *values) {
                const auto out = attention(isa, q, keys, n, dim, 256, n_entries, values);
                for (int i = 0; i < n; ++i)
                    expect_bad("attention", isa, &out[size_t(i) * 256], 256, false);
            };
            for (const KvEntries &entries : {in_float32, in_float16, in_int8}) {
                check(entries, nullptr);
                check(entries, &good_keys);
                if (place < 256) check(good_keys, &entries);
            }
        }
    }
}

// Frames nest, chunks that are added meanwhile leave earlier pointers alone, and memory is reused.
void check_arena() {
    Arena arena;
    uint8_t *first = nullptr;
    for (int round = 0; round < 3; ++round) {
        Frame outer(arena);
        uint8_t *kept = outer.get<uint8_t>(1000);
        if (round == 2 && kept != first) ++failures, std::printf("arena: memory is not reused\n");
        first = kept;
        std::memset(kept, 7, 1000);
        for (int64_t n = 1; n < 3'000'000; n *= 10) {
            Frame inner(arena);
            std::memset(inner.get<uint8_t>(n), 1, size_t(n));
            std::memset(inner.get<uint8_t>(n), 2, size_t(n));
        }
        const bool intact = std::all_of(kept, kept + 1000, [](uint8_t byte) { return byte == 7; });
        if (!intact || reinterpret_cast<uintptr_t>(kept) % 64)
            ++failures, std::printf("arena: a frame is overwritten or not aligned\n");
    }
}

}  // namespace

int main() {
    check_arena();
    int n_isas = 0;
    const Isa *const *isas = usable_isas(n_isas);
    const Isa &plain = *isas[n_isas - 1];
    for (int i = 0; i < n_isas; ++i) {
        check_products(*isas[i], plain);
        check_blocks(*isas[i]);
        check_attention(*isas[i], plain);
        check_latents(*isas[i], plain);
        for (int n_threads : {1, 3}) {
            check_set(*isas[i], plain, n_threads);
            check_layers(*isas[i], plain, n_threads);
        }
        std::printf("%s: checked\n", isas[i]->name);
    }
    for (int i = 0; i < n_isas; ++i) check_short_rows(*isas[i], plain);
    for (int i = 0; i < n_isas; ++i)
        for (float bad : {NAN, INFINITY, -INFINITY}) {
            check_bad_activations(*isas[i], bad);
            check_bad_entries(*isas[i], bad);
        }
    return failures != 0;
}
