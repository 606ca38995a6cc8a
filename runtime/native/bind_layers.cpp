// Halves of a layer for Python: bound once to their weights, which they keep alive, then called with activations only.
#include <nanobind/stl/optional.h>

#include <optional>

#include "runtime/native/bind.hpp"

using nb::literals::operator""_a;

namespace sprat {
namespace {

using Plane = nb::ndarray<nb::ndim<4>, nb::device::cpu>;  // (n_layers, heads, capacity, numbers), written to
using MaybeFloats = std::optional<Floats>;

const float *data_or_null(const MaybeFloats &numbers) { return numbers ? numbers->data() : nullptr; }

void expect_floats(const Floats &numbers, int64_t n) {
    expect(numbers.size() == size_t(n), "a norm or bias does not fit its layer");
}
void expect_floats(const MaybeFloats &numbers, int64_t n) {
    if (numbers) expect_floats(*numbers, n);
}

// Weights are kept alive by nanobind; gains and biases here.
struct BoundLatent : LatentAttention {
    Floats gain, kv_gain;
    MaybeFloats q_gain;

    BoundLatent(const Floats &norm, const PackedMatrix *q_a, const MaybeFloats &q_a_norm, const PackedMatrix &q,
                const PackedMatrix &kv_a, const Floats &kv_a_norm, const PackedMatrix &k_b, const PackedMatrix &v_b,
                const PackedMatrix &output, float eps, float scale)
        : LatentAttention{{norm.data(), eps}, q_a,  {data_or_null(q_a_norm), eps}, &q,   &kv_a, {kv_a_norm.data(), eps},
                          &k_b,               &v_b, &output,                       scale},
          gain(norm), kv_gain(kv_a_norm), q_gain(q_a_norm) {
        const int64_t hidden = output.rows;
        expect(q.rows % k_b.n_slices == 0 && rope() > 0 && rope() % 2 == 0, "queries do not fit their heads");
        expect(kv_a.rows == rank() + rope() && kv_a.cols == hidden, "latents do not fit k_b");
        expect(v_b.n_slices == heads() && v_b.cols == rank(), "values do not fit k_b");
        expect(output.cols == heads() * v_b.rows, "the output does not fit the values");
        expect((q_a ? q_a : &q)->cols == hidden, "queries do not follow the hidden state");
        expect(!q_a || (q.cols == q_a->rows && q_a_norm), "queries do not follow their compression");
        expect_floats(norm, hidden), expect_floats(kv_a_norm, rank()), expect_floats(q_a_norm, q.cols);
    }
};

struct BoundGrouped : GroupedAttention {
    Floats gain;
    MaybeFloats kept_q, kept_k, kept_v;

    BoundGrouped(const Floats &norm, const PackedMatrix &q, const PackedMatrix &k, const PackedMatrix &v,
                 const PackedMatrix &output, const MaybeFloats &q_bias, const MaybeFloats &k_bias, const MaybeFloats &v_bias,
                 int dim, float eps, float scale)
        : GroupedAttention{{norm.data(), eps},   &q,  &k,  &v, &output, data_or_null(q_bias), data_or_null(k_bias),
                           data_or_null(v_bias), dim, scale},
          gain(norm), kept_q(q_bias), kept_k(k_bias), kept_v(v_bias) {
        expect(dim > 0 && dim % 2 == 0 && q.rows % dim == 0 && k.rows % dim == 0, "rows do not fit their heads");
        expect(heads() % kv_heads() == 0, "heads do not fit their groups");
        expect(v.rows == k.rows && output.cols == q.rows, "values do not fit the keys");
        expect(q.cols == output.rows && k.cols == q.cols && v.cols == q.cols, "projections do not follow the hidden state");
        expect_floats(norm, q.cols);
        expect_floats(q_bias, q.rows), expect_floats(k_bias, k.rows), expect_floats(v_bias, v.rows);
    }
};

struct BoundMlp : GatedMlp {
    Floats gain;

    BoundMlp(const Floats &norm, const PackedMatrix &gate, const PackedMatrix &up, const PackedMatrix &down, float eps)
        : GatedMlp{{norm.data(), eps}, mlp_of(gate, up, down)}, gain(norm) {
        expect(gate.n_slices == 1 && down.rows == gate.cols, "an MLP does not end as it begins");
        expect_floats(norm, gate.cols);
    }
};

struct BoundMixture : Mixture {
    Floats gain;
    MaybeFloats kept_bias;

    BoundMixture(const Floats &norm, const PackedMatrix &router, const MaybeFloats &bias, const MoE &moe,
                 const PackedMatrix &gate, const PackedMatrix &up, const PackedMatrix &down, const PackedMatrix *shared_gate,
                 const PackedMatrix *shared_up, const PackedMatrix *shared_down, float eps)
        : Mixture{{norm.data(), eps}, &router, data_or_null(bias), moe, mlp_of(gate, up, down), {}},
          gain(norm), kept_bias(bias) {
        if (shared_gate) shared = mlp_of(*shared_gate, *shared_up, *shared_down);
        expect(router.rows == moe.n_experts && gate.n_slices == moe.n_experts, "the router does not fit its experts");
        expect(router.cols == gate.cols && down.rows == gate.cols, "experts do not end as they begin");
        expect(!shared_gate || (shared_gate->cols == gate.cols && shared_down->rows == down.rows),
               "shared experts differ in shape");
        expect(moe.n_chosen <= moe.n_experts && moe.n_experts % moe.n_groups == 0, "experts do not fit their groups");
        expect_floats(norm, gate.cols), expect_floats(bias, moe.n_experts);
    }
};

struct BoundHead : Head {
    Floats gain;

    BoundHead(const Floats &norm, const PackedMatrix &output, float eps) : Head{{norm.data(), eps}, &output}, gain(norm) {
        expect_floats(norm, output.cols);
    }
};

struct BoundAngles : Angles {
    Floats kept_cos, kept_sin;

    BoundAngles(const Floats &cos, const Floats &sin, bool interleaved)
        : Angles{cos.data(), sin.data(), interleaved}, kept_cos(cos), kept_sin(sin) {
        expect(cos.ndim() == 2 && cos.size() == sin.size(), "cosines and sines differ in number");
    }

    void expect_shape(int64_t n, int64_t dim) const {
        expect(int64_t(kept_cos.shape(0)) == n && 2 * int64_t(kept_cos.shape(1)) == dim, "angles do not fit the tokens");
    }
};

int64_t tokens_in(const Out &x, int64_t hidden) {
    expect(x.ndim() == 2 && int64_t(x.shape(1)) == hidden, "hidden states do not fit the layer");
    return int64_t(x.shape(0));
}

// Layer `index` of a plane of `heads` rows of n numbers per token, with room for n_new tokens behind `past`.
CachePlane plane_of(const Plane &plane, int64_t index, int64_t heads, int64_t n, int64_t n_int8, int group, int64_t past,
                    int64_t n_new) {
    const CacheRows all(plane);
    expect(index >= 0 && index < int64_t(plane.shape(0)), "the cache is another model's: it has fewer layers");
    expect(int64_t(plane.shape(1)) == heads, "the cache is another model's: it has other heads");
    expect(past >= 0 && past + n_new <= int64_t(plane.shape(2)), "the cache is full");
    CachePlane found{rows_of(all, n, n_int8, group), bytes_of(all, 1), past};
    found.rows.data += index * bytes_of(all, 0);
    return found;
}

void latent_attention(KernelSet &set, const BoundLatent &layer, Out &x, const BoundAngles &angles, const Plane &plane,
                      int64_t index, int64_t past, bool expanded) {
    const int64_t n = tokens_in(x, layer.output->rows);
    angles.expect_shape(n, layer.rope());
    const int64_t rank = layer.rank();
    const CachePlane rows = plane_of(plane, index, 1, rank + layer.rope(), rank, latent_group(rank), past, n);
    run(set, [&] { set.latent_attention(layer, x.data(), n, angles, rows, expanded); });
}

void grouped_attention(KernelSet &set, const BoundGrouped &layer, Out &x, const BoundAngles &angles, const Plane &keys,
                       const Plane &values, int64_t index, int64_t past) {
    const int64_t n = tokens_in(x, layer.output->rows), dim = layer.head_dim;
    angles.expect_shape(n, dim);
    const CachePlane key_rows = plane_of(keys, index, layer.kv_heads(), dim, dim, HEAD_GROUP, past, n);
    const CachePlane value_rows = plane_of(values, index, layer.kv_heads(), dim, dim, HEAD_GROUP, past, n);
    run(set, [&] { set.grouped_attention(layer, x.data(), n, angles, key_rows, value_rows); });
}

void gated_mlp(KernelSet &set, const BoundMlp &layer, Out &x) {
    const int64_t n = tokens_in(x, layer.mlp.gate->cols);
    run(set, [&] { set.gated_mlp(layer, x.data(), n); });
}

void mixture(KernelSet &set, const BoundMixture &layer, Out &x) {
    const int64_t n = tokens_in(x, layer.router->cols);
    run(set, [&] { set.mixture(layer, x.data(), n); });
}

void expect_choice(const BoundMixture &layer, int64_t n, size_t n_choices, size_t n_weights) {
    expect(n_choices == size_t(n * layer.moe.n_chosen) && n_weights == n_choices, "shapes of a choice differ");
}

void choose(KernelSet &set, const BoundMixture &layer, Out &x, OutInts &choice, Out &weights) {
    const int64_t n = tokens_in(x, layer.router->cols);
    expect_choice(layer, n, choice.size(), weights.size());
    run(set, [&] { set.choose(layer, x.data(), n, choice.data(), weights.data()); });
}

void mix_chosen(KernelSet &set, const BoundMixture &layer, Out &x, const Ints &choice, const Floats &weights) {
    const int64_t n = tokens_in(x, layer.router->cols);
    expect_choice(layer, n, choice.size(), weights.size());
    for (size_t i = 0; i < choice.size(); ++i) {
        const int32_t expert = choice.data()[i];
        expect(expert >= 0 && expert < layer.moe.n_experts, "a route leads to an expert that does not exist");
    }
    run(set, [&] { set.mix_chosen(layer, x.data(), n, choice.data(), weights.data()); });
}

void head(KernelSet &set, const BoundHead &layer, const Floats &x, Out &out) {
    const int64_t k = layer.output->cols, n = int64_t(x.size()) / k;
    expect(x.size() == size_t(n * k) && out.size() == size_t(n * layer.output->rows), "shapes of logits differ");
    run(set, [&] { set.head(layer, x.data(), n, out.data()); });
}

}  // namespace
}  // namespace sprat

void bind_layers(nb::module_ &m, nb::class_<sprat::KernelSet> &kernels) {
    using namespace sprat;
    using M = const PackedMatrix &;
    using MaybeM = const PackedMatrix *;
    using Kept = const MaybeFloats &;
    nb::class_<BoundLatent>(m, "LatentAttention")
        .def(nb::init<const Floats &, MaybeM, Kept, M, M, const Floats &, M, M, M, float, float>(), "norm"_a, "q_a"_a.none(),
             "q_a_norm"_a.none(), "q"_a, "kv_a"_a, "kv_a_norm"_a, "k_b"_a, "v_b"_a, "output"_a, "eps"_a, "scale"_a,
             nb::keep_alive<1, 3>(), nb::keep_alive<1, 5>(), nb::keep_alive<1, 6>(), nb::keep_alive<1, 8>(),
             nb::keep_alive<1, 9>(), nb::keep_alive<1, 10>());
    nb::class_<BoundGrouped>(m, "GroupedAttention")
        .def(nb::init<const Floats &, M, M, M, M, Kept, Kept, Kept, int, float, float>(), "norm"_a, "q"_a, "k"_a, "v"_a,
             "output"_a, "q_bias"_a.none(), "k_bias"_a.none(), "v_bias"_a.none(), "head_dim"_a, "eps"_a, "scale"_a,
             nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>(), nb::keep_alive<1, 6>());
    nb::class_<BoundMlp>(m, "GatedMLP")
        .def(nb::init<const Floats &, M, M, M, float>(), "norm"_a, "gate"_a, "up"_a, "down"_a, "eps"_a,
             nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>());
    nb::class_<BoundMixture>(m, "Mixture")
        .def(nb::init<const Floats &, M, Kept, const MoE &, M, M, M, MaybeM, MaybeM, MaybeM, float>(), "norm"_a, "router"_a,
             "bias"_a.none(), "moe"_a, "gate"_a, "up"_a, "down"_a, "shared_gate"_a.none(), "shared_up"_a.none(),
             "shared_down"_a.none(), "eps"_a, nb::keep_alive<1, 3>(), nb::keep_alive<1, 6>(), nb::keep_alive<1, 7>(),
             nb::keep_alive<1, 8>(), nb::keep_alive<1, 9>(), nb::keep_alive<1, 10>(), nb::keep_alive<1, 11>());
    nb::class_<BoundHead>(m, "Head")
        .def(nb::init<const Floats &, M, float>(), "norm"_a, "output"_a, "eps"_a, nb::keep_alive<1, 3>());
    nb::class_<BoundAngles>(m, "Angles")
        .def(nb::init<const Floats &, const Floats &, bool>(), "cos"_a, "sin"_a, "interleaved"_a);
    const auto in_place = [](const char *name) { return nb::arg(name).noconvert(); };
    const auto x = in_place("x"), choice = in_place("choice"), weights = in_place("weights");
    kernels
        .def("latent_attention", &latent_attention, "layer"_a, x, "angles"_a, in_place("plane"), "index"_a, "past"_a,
             "expanded"_a)
        .def("grouped_attention", &grouped_attention, "layer"_a, x, "angles"_a, in_place("keys"), in_place("values"),
             "index"_a, "past"_a)
        .def("gated_mlp", &gated_mlp, "layer"_a, x)
        .def("mixture", &mixture, "layer"_a, x)
        .def("choose", &choose, "layer"_a, x, choice, weights)
        .def("mix_chosen", &mix_chosen, "layer"_a, x, choice, weights)
        .def("head", &head, "layer"_a, "x"_a, in_place("out"));
}
