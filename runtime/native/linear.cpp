#include "runtime/native/linear.hpp"

#include <algorithm>

namespace sprat {
namespace {

// Rows of one task, whole panels of them. 48 KB (the smallest work worth another thread, see Pool)
// are 42 rows of Q4_0 with 2048 columns, rounded up to 64: long enough for a stream of reads to
// reach full speed, short enough to balance the load. Of a small matrix less, so that each thread
// has four tasks to even out cores of different speed.
int64_t rows_per_task(const Matrix &m, int n_threads) {
    constexpr int64_t kTaskBytes = 48 * 1024, kTasksPerThread = 4;
    const int64_t by_bytes =
        pad_to(std::max<int64_t>(1, kTaskBytes / int64_t(m.row_bytes)), kMaxNR);
    const int64_t by_balance =
        pad_to(std::max<int64_t>(1, m.rows / (kTasksPerThread * n_threads)), kMaxNR);
    return std::min(by_bytes, by_balance);
}

int64_t n_tasks(const Matrix &m, int n_threads) {
    const int64_t step = rows_per_task(m, n_threads);
    return (m.rows + step - 1) / step;
}

}  // namespace

Activations Activations::from(int64_t first) const {
    return {x + first * k,
            k,
            {quantized.records + first * quantized.record_bytes(), quantized.k_padded},
            residual};
}

Activations LinearOps::quantized_buffer(Frame &frame, const float *x, int64_t n, int64_t k) {
    QuantizedActivations to{nullptr, pad_to(k, 256)};
    to.records = frame.get<uint8_t>(context_.n_digits * n * to.record_bytes());
    return {x, k, to, context_.n_digits > 1 ? n : 0};
}

void LinearOps::quantize_activations(const Activations &input, int64_t token, int thread) {
    const QuantizedActivations &to = input.quantized;
    const float *x = input.x + token * input.k;
    context_.isa.quantize(x, input.k, to, token);
    if (!input.residual) return;
    const uint8_t *record = to.records + token * to.record_bytes();
    const int8_t *q = reinterpret_cast<const int8_t *>(record);
    const float *d = reinterpret_cast<const float *>(record + to.k_padded);
    Frame frame = context_.frame(thread);
    float *residual = frame.get<float>(input.k);
    for (int64_t i = 0; i < input.k; ++i) residual[i] = x[i] - d[i / 32] * float(q[i]);
    context_.isa.quantize(residual, input.k, to, token + input.residual);
}

Activations LinearOps::activations(Frame &frame, const float *x, int64_t n, int64_t k,
                                   bool quantized) {
    if (!quantized) return {x, k, {}};
    const Activations input = quantized_buffer(frame, x, n, k);
    context_.each_token(n, k,
                        [&](int64_t t, int thread) { quantize_activations(input, t, thread); });
    return input;
}

Activations LinearOps::normed(Frame &frame, const Norm &norm, const float *x, int64_t n, int64_t k,
                              bool quantized) {
    float *to = frame.get<float>(n * k);
    const Activations input =
        quantized ? quantized_buffer(frame, to, n, k) : Activations{to, k, {}};
    context_.each_token(n, k, [&](int64_t t, int thread) {
        context_.isa.rms_norm(x + t * k, norm.gain.data, norm.eps, k, to + t * k);
        if (quantized) quantize_activations(input, t, thread);
    });
    return input;
}

void LinearOps::gemm(const Matrix &weight, int64_t slice, int64_t row, int64_t n_rows,
                     const Activations &input, const int32_t *tokens, int64_t n_tokens, float *out,
                     int64_t out_stride, int thread, const uint8_t *next) {
    Frame frame = context_.frame(thread);
    GemmTask task{};
    task.weights = weight.at(slice, row);
    task.next = next ? next : task.weights + n_rows * weight.row_bytes;
    task.row_bytes = weight.row_bytes;
    task.n_rows = int(n_rows);
    task.input = &input;
    task.tokens = tokens;
    task.n_tokens = int(n_tokens);
    task.out = out;
    task.out_stride = out_stride;
    task.scratch = frame.get<uint8_t>(int64_t(gemm_scratch_bytes(n_tokens)));
    context_.isa.gemm[weight.format](task);
    if (!input.residual || !wants_quantized(weight)) return;
    const Activations residual = input.from(input.residual);
    task.input = &residual, task.out = frame.get<float>(n_tokens * n_rows),
    task.out_stride = n_rows;
    context_.isa.gemm[weight.format](task);
    for (int64_t t = 0; t < n_tokens; ++t)
        for (int64_t r = 0; r < n_rows; ++r) out[t * out_stride + r] += task.out[t * n_rows + r];
}

void LinearOps::project(std::initializer_list<Part> parts, const Activations &input, int64_t n) {
    int64_t n_all = 0, n_bytes = 0;
    for (const Part &part : parts) {
        n_all += n_tasks(*part.weight, context_.n_threads());
        n_bytes += part.weight->rows * int64_t(part.weight->row_bytes);
    }
    context_.pool.each(n_all, n * n_bytes, [&](int64_t i, int thread) {
        const Part *part = parts.begin();
        for (int64_t here; i >= (here = n_tasks(*part->weight, context_.n_threads())); i -= here)
            ++part;
        const int64_t step = rows_per_task(*part->weight, context_.n_threads());
        project_rows(*part, i * step, std::min(step, part->weight->rows - i * step), input, n,
                     thread);
    });
}

void LinearOps::project_rows(const Part &part, int64_t row, int64_t n_rows,
                             const Activations &input, int64_t n, int thread) {
    Frame frame = context_.frame(thread);
    const int64_t stride = part.weight->rows;
    float *out = part.out + row;
    float *to = part.add ? frame.get<float>(n * n_rows) : out;
    const int64_t to_stride = part.add ? n_rows : stride;
    gemm(*part.weight, 0, row, n_rows, input, nullptr, n, to, to_stride, thread);
    for (int64_t t = 0; part.bias && t < n; ++t)
        for (int64_t r = 0; r < n_rows; ++r) to[t * to_stride + r] += part.bias[row + r];
    for (int64_t t = 0; part.add && t < n; ++t)
        for (int64_t r = 0; r < n_rows; ++r) out[t * stride + r] += to[t * n_rows + r];
}

void LinearOps::linear(const Matrix &weight, const float *x, int64_t n, const float *bias,
                       float *out) {
    Frame frame = context_.frame();
    project({{&weight, bias, out}}, activations(frame, x, n, weight.cols, wants_quantized(weight)),
            n);
}

void LinearOps::add_linear(const Matrix &weight, const float *y, int64_t n, float *x) {
    Frame frame = context_.frame();
    project({{&weight, nullptr, x, true}},
            activations(frame, y, n, weight.cols, wants_quantized(weight)), n);
}

void LinearOps::logits(const Head &layer, const float *x, int64_t n, float *out) {
    Frame frame = context_.frame();
    const Matrix &output = layer.output;
    const Activations input = normed(frame, layer.norm, x, n, output.cols, wants_quantized(output));
    project({{&output, nullptr, out}}, input, n);
}

void LinearOps::embed(const Matrix &table, const int32_t *tokens, int64_t n, float *out) {
    context_.each_token(n, table.cols, [&](int64_t t, int) {
        context_.isa.dequantize[table.format](table.at(0, tokens[t]), table.cols,
                                              out + t * table.cols);
    });
}

void LinearOps::rms_norm(const float *x, const float *gain, float eps, int64_t n, int64_t k,
                         float *out) {
    context_.each_token(
        n, k, [&](int64_t t, int) { context_.isa.rms_norm(x + t * k, gain, eps, k, out + t * k); });
}

}  // namespace sprat
