// Products of weights with all tokens, split over threads by rows; and what is done per token.
#include <algorithm>

#include "runtime/native/kernels.hpp"

namespace sprat {
namespace {

// Rows per piece of work: about 48 KB, long enough to stream and short enough to balance; whole panels.
int64_t rows_per_piece(const Matrix &m, int n_threads) {
    const int64_t by_bytes = pad_to(std::max<int64_t>(1, 48 * 1024 / int64_t(m.row_bytes)), LARGEST_PANEL);
    const int64_t by_balance = pad_to(std::max<int64_t>(1, m.rows / (4 * n_threads)), LARGEST_PANEL);
    return std::min(by_bytes, by_balance);
}

int64_t pieces_of(const Matrix &m, int n_threads) {
    const int64_t step = rows_per_piece(m, n_threads);
    return (m.rows + step - 1) / step;
}

}  // namespace

uint8_t *Buffer::bytes(size_t n) {
    if (data_.size() < n + 64) data_ = std::vector<uint8_t>(n + n / 8 + 64);
    return data_.data() + (64 - reinterpret_cast<uintptr_t>(data_.data()) % 64);
}

Input Input::from(int64_t first) const {
    return {x + first * k, k, {quantized.records + first * quantized.k_padded * 3 / 2, quantized.k_padded}, second};
}

Input KernelSet::records(Buffer &buffer, const float *x, int64_t n, int64_t k) {
    const int64_t k_padded = pad_to(k, 256);
    if (n_digits_ > 1) left_.get<float>(n * k);
    return {x, k, {buffer.get<uint8_t>(n_digits_ * n * k_padded * 3 / 2), k_padded}, n_digits_ > 1 ? n : 0};
}

void KernelSet::round(const Input &input, int64_t t) {
    const int64_t k = input.k, k_padded = input.quantized.k_padded;
    const float *x = input.x + t * k;
    isa_.quantize(x, k, input.quantized, t);
    if (!input.second) return;
    const uint8_t *record = input.quantized.records + t * k_padded * 3 / 2;
    const int8_t *q = reinterpret_cast<const int8_t *>(record);
    const float *d = reinterpret_cast<const float *>(record + k_padded);
    float *left = left_.get<float>(input.second * k) + t * k;
    for (int64_t i = 0; i < k; ++i) left[i] = x[i] - d[i / 32] * float(q[i]);
    isa_.quantize(left, k, input.quantized, t + input.second);
}

Input KernelSet::prepare(Buffer &buffer, const float *x, int64_t n, int64_t k, bool quantized) {
    if (!quantized) return {x, k, {}};
    const Input input = records(buffer, x, n, k);
    each_token(n, k, [&](int64_t t) { round(input, t); });
    return input;
}

void KernelSet::product(const Matrix &weight, int64_t slice, int64_t row, int64_t n_rows, const Input &input,
                        const int32_t *tokens, int64_t n_tokens, float *out, int64_t out_stride, int thread,
                        const uint8_t *next) {
    Product p{};
    p.weights = weight.at(slice, row);
    p.next = next ? next : p.weights + n_rows * weight.row_bytes;
    p.row_bytes = weight.row_bytes;
    p.n_rows = int(n_rows);
    p.input = &input;
    p.tokens = tokens;
    p.n_tokens = int(n_tokens);
    p.out = out;
    p.out_stride = out_stride;
    p.scratch = pool_.scratch(thread, product_scratch_bytes(n_tokens));
    isa_.product[weight.format](p);
    if (!input.second || !wants_quantized(weight)) return;
    const Input second = input.from(input.second);
    p.input = &second, p.out = second_sums_[thread].get<float>(n_tokens * n_rows), p.out_stride = n_rows;
    isa_.product[weight.format](p);
    for (int64_t t = 0; t < n_tokens; ++t)
        for (int64_t r = 0; r < n_rows; ++r) out[t * out_stride + r] += p.out[t * n_rows + r];
}

void KernelSet::project(std::initializer_list<Part> parts, const Input &input, int64_t n) {
    int64_t n_pieces = 0, n_bytes = 0;
    for (const Part &part : parts) {
        n_pieces += pieces_of(*part.weight, n_threads());
        n_bytes += part.weight->rows * int64_t(part.weight->row_bytes);
    }
    pool_.each(n_pieces, n * n_bytes, [&](int64_t i, int thread) {
        const Part *part = parts.begin();
        for (int64_t here; i >= (here = pieces_of(*part->weight, n_threads())); i -= here) ++part;
        const int64_t step = rows_per_piece(*part->weight, n_threads());
        project_rows(*part, i * step, std::min(step, part->weight->rows - i * step), input, n, thread);
    });
}

void KernelSet::project_rows(const Part &part, int64_t row, int64_t n_rows, const Input &input, int64_t n, int thread) {
    const int64_t stride = part.weight->rows;
    float *out = part.out + row;
    float *to = part.add ? staging_[thread].get<float>(n * n_rows) : out;
    const int64_t to_stride = part.add ? n_rows : stride;
    product(*part.weight, 0, row, n_rows, input, nullptr, n, to, to_stride, thread);
    for (int64_t t = 0; part.bias && t < n; ++t)
        for (int64_t r = 0; r < n_rows; ++r) to[t * to_stride + r] += part.bias[row + r];
    for (int64_t t = 0; part.add && t < n; ++t)
        for (int64_t r = 0; r < n_rows; ++r) out[t * stride + r] += to[t * n_rows + r];
}

void KernelSet::linear(const Matrix &weight, const float *x, int64_t n, const float *bias, float *out) {
    project({{&weight, bias, out}}, prepare(inputs_, x, n, weight.cols, wants_quantized(weight)), n);
}

void KernelSet::add_product(const Matrix &weight, const float *y, int64_t n, float *x) {
    project({{&weight, nullptr, x, true}}, prepare(inputs_, y, n, weight.cols, wants_quantized(weight)), n);
}

void KernelSet::logits(const Head &layer, const float *x, int64_t n, float *out) {
    project({{&layer.output, nullptr, out}}, normed(layer.norm, x, n, layer.output.cols, wants_quantized(layer.output)), n);
}

void KernelSet::embed(const Matrix &table, const int32_t *tokens, int64_t n, float *out) {
    each_token(n, table.cols, [&](int64_t t) {
        isa_.dequantize[table.format](table.data + tokens[t] * table.row_bytes, table.cols, out + t * table.cols);
    });
}

void KernelSet::rms_norm(const float *x, const float *gain, float eps, int64_t n, int64_t k, float *out) {
    each_token(n, k, [&](int64_t t) { isa_.rms_norm(x + t * k, gain, eps, k, out + t * k); });
}

Input KernelSet::normed(const Norm &norm, const float *x, int64_t n, int64_t k, bool quantized) {
    float *to = normed_.get<float>(n * k);
    const Input input = quantized ? records(inputs_, to, n, k) : Input{to, k, {}};
    each_token(n, k, [&](int64_t t) {
        isa_.rms_norm(x + t * k, norm.gain.data, norm.eps, k, to + t * k);
        if (quantized) round(input, t);
    });
    return input;
}

}  // namespace sprat
