// The work of count_sprat.cpp, with the same arguments, in llama.cpp's CPU backend (ggml).
//
//   count_llamacpp BUFFER REPEATS WORK ...
//
// BUFFER is "repacked" for weights that the backend lays out anew for its kernels, which fails with
// exit status 3 where it has none for the format; else "plain". The least CPU time of a repetition
// is printed, in seconds.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cpu_time.hpp"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace {

struct Arguments {
    char **at;

    std::string text() { return *at++; }
    int64_t number() { return std::atoll(*at++); }
};

ggml_type type_named(const std::string &name) {
    for (int t = 0; t < GGML_TYPE_COUNT; ++t) {
        const char *known = ggml_type_name(ggml_type(t));
        if (known && !strcasecmp(known, name.c_str())) return ggml_type(t);
    }
    std::fprintf(stderr, "no type is called %s\n", name.c_str());
    std::exit(2);
}

ggml_backend_buffer_type_t repacked_buffers() {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const auto extra =
        reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts"));
    for (auto *type = extra ? extra(cpu) : nullptr; type && *type; ++type)
        if (!std::strcmp(ggml_backend_buft_name(*type), "CPU_REPACK")) return *type;
    std::exit(3);
}

// A graph of one operation on weights and inputs.
class Graph {
  public:
    explicit Graph(bool repacked)
        : weights(ggml_init({1 << 20, nullptr, true})),
          inputs(ggml_init({1 << 20, nullptr, true})),
          repacked_(repacked) {}

    void run(ggml_tensor *result, int64_t repeats) {
        ggml_cgraph *graph = ggml_new_graph(inputs);
        ggml_build_forward_expand(graph, result);
        ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
        ggml_backend_cpu_set_n_threads(cpu, 1);
        place_weights(result);
        ggml_backend_alloc_ctx_tensors(inputs, cpu);
        for (ggml_tensor *t = ggml_get_first_tensor(inputs); t; t = ggml_get_next_tensor(inputs, t))
            if (!t->src[0]) fill(t);
        repeat(repeats, [&] { ggml_backend_graph_compute(cpu, graph); });
    }

    ggml_context *weights, *inputs;

  private:
    void place_weights(ggml_tensor *result) {
        if (!ggml_get_first_tensor(weights)) return;
        const auto type = repacked_ ? repacked_buffers() : ggml_backend_cpu_buffer_type();
        ggml_backend_alloc_ctx_tensors_from_buft(weights, type);
        ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        if (!ggml_backend_dev_supports_op(cpu, first_product(result))) std::exit(3);
        for (ggml_tensor *t = ggml_get_first_tensor(weights); t;
             t = ggml_get_next_tensor(weights, t)) {
            if (repacked_ && !t->extra) std::exit(3);
            fill(t);
        }
    }

    static ggml_tensor *first_product(ggml_tensor *result) {
        while (result->src[0]->op != GGML_OP_NONE) result = result->src[0];
        return result;
    }

    static void fill(ggml_tensor *t) {
        std::vector<uint8_t> bytes(ggml_nbytes(t), t->type == GGML_TYPE_I32 ? 0 : 0x28);
        if (t->type == GGML_TYPE_F32)
            for (size_t i = 0; i < bytes.size() / 4; ++i) {
                const float x = float(int(i % 17) - 8) / 16;
                std::memcpy(&bytes[4 * i], &x, 4);
            }
        if (t->type == GGML_TYPE_I32)
            for (size_t i = 0; i < bytes.size() / 4; ++i)
                bytes[4 * i] = uint8_t(i % size_t(t->op_params[0] ? t->op_params[0] : 1));
        ggml_backend_tensor_set(t, bytes.data(), 0, bytes.size());
    }

    bool repacked_;
};

ggml_tensor *product(Graph &g, Arguments arguments) {
    const ggml_type type = type_named(arguments.text());
    const int64_t rows = arguments.number(), cols = arguments.number(), n = arguments.number();
    ggml_tensor *w = ggml_new_tensor_2d(g.weights, type, cols, rows);
    return ggml_mul_mat(g.inputs, w, ggml_new_tensor_2d(g.inputs, GGML_TYPE_F32, cols, n));
}

ggml_tensor *experts(Graph &g, Arguments arguments) {
    const ggml_type type = type_named(arguments.text());
    const int64_t width = arguments.number(), hidden = arguments.number();
    const int64_t n_experts = arguments.number(), n = arguments.number();
    ggml_tensor *gate = ggml_new_tensor_3d(g.weights, type, hidden, width, n_experts);
    ggml_tensor *up = ggml_new_tensor_3d(g.weights, type, hidden, width, n_experts);
    ggml_tensor *down = ggml_new_tensor_3d(g.weights, type, width, hidden, n_experts);
    ggml_tensor *x = ggml_new_tensor_3d(g.inputs, GGML_TYPE_F32, hidden, 1, n);
    ggml_tensor *ids = ggml_new_tensor_2d(g.inputs, GGML_TYPE_I32, 1, n);
    ids->op_params[0] = int32_t(n_experts);  // for Graph::fill
    ggml_tensor *both = ggml_swiglu_split(g.inputs, ggml_mul_mat_id(g.inputs, gate, x, ids),
                                          ggml_mul_mat_id(g.inputs, up, x, ids));
    return ggml_mul_mat_id(g.inputs, down, both, ids);
}

ggml_tensor *attention(Graph &g, int64_t heads, int64_t kv_heads, int64_t dim, int64_t value_dim,
                       int64_t depth, int64_t n) {
    ggml_context *c = g.inputs;
    ggml_tensor *q = ggml_new_tensor_3d(c, GGML_TYPE_F32, dim, n, heads);
    ggml_tensor *k = ggml_new_tensor_3d(c, GGML_TYPE_F16, dim, depth, kv_heads);
    ggml_tensor *v = ggml_view_3d(c, k, value_dim, depth, kv_heads, k->nb[1], k->nb[2], 0);
    ggml_tensor *mask = ggml_new_tensor_2d(c, GGML_TYPE_F16, depth, n);
    return ggml_flash_attn_ext(c, q, k, v, mask, 0.1f, 0, 0);
}

ggml_tensor *work(Graph &g, const std::string &name, Arguments a) {
    if (name == "product") return product(g, a);
    if (name == "experts") return experts(g, a);
    const int64_t heads = a.number(), second = a.number(), third = a.number(), depth = a.number(),
                  n = a.number();
    if (name == "grouped") return attention(g, heads, second, third, third, depth, n);
    return attention(g, heads, 1, second + third, second, depth, n);  // latent
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 5) return std::fprintf(stderr, "count_llamacpp BUFFER REPEATS WORK ...\n"), 2;
    Graph graph(!std::strcmp(argv[1], "repacked"));
    graph.run(work(graph, argv[3], Arguments{argv + 4}), std::atoll(argv[2]));
}
