// Sublayers for Python: bound once to their record, then called with activations only.
#include "runtime/native/bind/arrays.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

using nb::literals::operator""_a;

namespace sprat {
namespace {

// The K, V or latent buffers of all layers: (n_layers, heads, capacity, elements); they are written
// to.
using Buffers = nb::ndarray<nb::ndim<4>, nb::device::cpu>;

struct BoundAngles : RopeAngles {
    Floats kept_cos, kept_sin;

    explicit BoundAngles(const nb::object &angles)
        : BoundAngles(nb::cast<Floats>(angles.attr("cos")), nb::cast<Floats>(angles.attr("sin")),
                      nb::cast<bool>(angles.attr("interleaved"))) {}

    void expect_shape(int64_t n, int64_t dim) const {
        expect(int64_t(kept_cos.shape(0)) == n && 2 * int64_t(kept_cos.shape(1)) == dim,
               "angles do not fit the tokens");
    }

  private:
    BoundAngles(const Floats &cos, const Floats &sin, bool interleaved)
        : RopeAngles{cos.data(), sin.data(), interleaved}, kept_cos(cos), kept_sin(sin) {
        expect(cos.ndim() == 2 && cos.size() == sin.size(),
               "there are not as many cosines as sines");
    }
};

int64_t tokens_in(const Out &x, int64_t hidden) {
    expect(x.ndim() == 2 && int64_t(x.shape(1)) == hidden, "hidden states do not fit the layer");
    return int64_t(x.shape(0));
}

// The buffer of layer `index`: `heads` entries of n elements per token, with room for n_new tokens
// behind `n_past`.
KvBuffer buffer_of(const Buffers &buffers, int64_t index, int64_t heads, int64_t n, int64_t n_int8,
                   int group, int64_t n_past, int64_t n_new) {
    const CacheArray all(buffers);
    expect(index >= 0 && index < int64_t(buffers.shape(0)),
           "the cache is another model's: it has fewer layers");
    expect(int64_t(buffers.shape(1)) == heads, "the cache is another model's: it has other heads");
    expect(n_past >= 0 && n_past + n_new <= int64_t(buffers.shape(2)), "the cache is full");
    KvBuffer found{entries_of(all, n, n_int8, group), bytes_of(all, 1), n_past};
    found.entries.data += index * bytes_of(all, 0);
    return found;
}

void latent_attention(KernelSet &set, const LatentAttention &layer, Out &x,
                      const BoundAngles &angles, const Buffers &latents, int64_t index,
                      int64_t n_past, bool expanded) {
    const int64_t n = tokens_in(x, layer.output.rows);
    angles.expect_shape(n, layer.rope());
    const int64_t rank = layer.rank();
    const KvBuffer buffer =
        buffer_of(latents, index, 1, rank + layer.rope(), rank, latent_group(rank), n_past, n);
    run(set, [&] {
        set.attention.latent_attention(layer, x.data(), n, angles, {&buffer, 1}, expanded);
    });
}

// One token of each of several sequences, whose caches and lengths are listed in the same order.
void expect_one_each(int64_t n, const std::vector<Buffers> &caches,
                     const std::vector<int64_t> &n_past) {
    expect(n > 0 && int64_t(caches.size()) == n && n_past.size() == caches.size(),
           "there is not one token for each cache");
}

void latent_attention_each(KernelSet &set, const LatentAttention &layer, Out &x,
                           const BoundAngles &angles, const std::vector<Buffers> &latents,
                           int64_t index, const std::vector<int64_t> &n_past, bool expanded) {
    const int64_t n = tokens_in(x, layer.output.rows), rank = layer.rank();
    angles.expect_shape(n, layer.rope());
    expect_one_each(n, latents, n_past);
    std::vector<KvBuffer> buffers;
    for (size_t i = 0; i < latents.size(); ++i)
        buffers.push_back(buffer_of(latents[i], index, 1, rank + layer.rope(), rank,
                                    latent_group(rank), n_past[i], 1));
    run(set, [&] {
        set.attention.latent_attention(layer, x.data(), n, angles, {buffers.data(), n}, expanded);
    });
}

void grouped_attention(KernelSet &set, const GroupedAttention &layer, Out &x,
                       const BoundAngles &angles, const Buffers &keys, const Buffers &values,
                       int64_t index, int64_t n_past) {
    const int64_t n = tokens_in(x, layer.output.rows), dim = layer.head_dim;
    angles.expect_shape(n, dim);
    const auto buffer = [&](const Buffers &all) {
        return buffer_of(all, index, layer.kv_heads(), dim, dim, kHeadGroup, n_past, n);
    };
    const KvBuffer key_buffer = buffer(keys), value_buffer = buffer(values);
    run(set, [&] {
        set.attention.grouped_attention(layer, x.data(), n, angles, {&key_buffer, 1},
                                        {&value_buffer, 1});
    });
}

void grouped_attention_each(KernelSet &set, const GroupedAttention &layer, Out &x,
                            const BoundAngles &angles, const std::vector<Buffers> &keys,
                            const std::vector<Buffers> &values, int64_t index,
                            const std::vector<int64_t> &n_past) {
    const int64_t n = tokens_in(x, layer.output.rows), dim = layer.head_dim;
    angles.expect_shape(n, dim);
    expect_one_each(n, keys, n_past);
    expect_one_each(n, values, n_past);
    const auto buffers = [&](const std::vector<Buffers> &all) {
        std::vector<KvBuffer> found;
        for (size_t i = 0; i < all.size(); ++i)
            found.push_back(buffer_of(all[i], index, layer.kv_heads(), dim, dim, kHeadGroup,
                                      n_past[i], 1));
        return found;
    };
    const std::vector<KvBuffer> key_buffers = buffers(keys), value_buffers = buffers(values);
    run(set, [&] {
        set.attention.grouped_attention(layer, x.data(), n, angles, {key_buffers.data(), n},
                                        {value_buffers.data(), n});
    });
}

void gated_mlp(KernelSet &set, const GatedMlp &layer, Out &x) {
    const int64_t n = tokens_in(x, layer.mlp.gate.cols);
    run(set, [&] { set.moe.gated_mlp(layer, x.data(), n); });
}

void moe(KernelSet &set, const Moe &layer, Out &x) {
    const int64_t n = tokens_in(x, layer.router.cols);
    run(set, [&] { set.moe.moe(layer, x.data(), n); });
}

void expect_routes(const Moe &layer, int64_t n, size_t n_ids, size_t n_weights) {
    expect(n_ids == size_t(n * layer.spec.n_chosen) && n_weights == n_ids,
           "routes do not match the tokens");
}

void moe_route(KernelSet &set, const Moe &layer, Out &x, OutInts &expert_ids, Out &weights) {
    const int64_t n = tokens_in(x, layer.router.cols);
    expect_routes(layer, n, expert_ids.size(), weights.size());
    run(set, [&] { set.moe.moe_route(layer, x.data(), n, expert_ids.data(), weights.data()); });
}

void moe_forward_routed(KernelSet &set, const Moe &layer, Out &x, const Ints &expert_ids,
                        const Floats &weights) {
    const int64_t n = tokens_in(x, layer.router.cols);
    expect_routes(layer, n, expert_ids.size(), weights.size());
    expect_experts(expert_ids, layer.spec.n_experts);
    run(set,
        [&] { set.moe.moe_forward_routed(layer, x.data(), n, expert_ids.data(), weights.data()); });
}

void logits(KernelSet &set, const Head &layer, const Floats &x, Out &out) {
    const int64_t k = layer.output.cols, n = int64_t(x.size()) / k;
    expect(x.size() == size_t(n * k) && out.size() == size_t(n * layer.output.rows),
           "shapes of logits differ");
    run(set, [&] { set.linear.logits(layer, x.data(), n, out.data()); });
}

// A class that is made from the Python record of the same name.
template <class Layer> void bind_layer(nb::module_ &m, const char *name) {
    nb::class_<Layer>(m, name).def(
        "__init__",
        [](Layer *at, nb::object record) {
            const auto fields = std::make_shared<PythonRecord>(std::move(record));
            new (at) Layer(fields);
            fields->expect_all_read();
        },
        "record"_a);
}

}  // namespace

void PythonRecord::expect_all_read() const {
    for (const nb::handle field : object_.attr("__dataclass_fields__")) {
        const auto name = nb::cast<std::string>(field);
        if (!read_.count(name))
            throw std::invalid_argument("the native core does not know the field " + name +
                                        " of a layer: it is older than sprat; reinstall sprat");
    }
}

nb::object PythonRecord::read(const char *name) const {
    read_.insert(name);
    return object_.attr(name);
}

Matrix PythonRecord::matrix(const char *name) const {
    const nb::object weight = read(name);
    if (weight.is_none()) return {};
    BoundWeight bound(weight);
    arrays_->push_back(std::move(bound.packed));
    return bound;
}

Vector PythonRecord::vector(const char *name) const {
    nb::object values = read(name);
    if (values.is_none()) return {};
    Floats floats;
    expect(nb::try_cast(values, floats, false), "a norm or bias is not a contiguous float32 array");
    arrays_->push_back(std::move(values));
    return {floats.data(), int64_t(floats.size())};
}

double PythonRecord::number(const char *name) const { return nb::cast<double>(read(name)); }
bool PythonRecord::flag(const char *name) const { return nb::cast<bool>(read(name)); }
std::string PythonRecord::text(const char *name) const {
    return nb::cast<std::string>(read(name).attr("value"));
}

RecordPtr PythonRecord::record(const char *name) const {
    nb::object field = read(name);
    if (field.is_none()) return nullptr;
    return RecordPtr(new PythonRecord(std::move(field), arrays_));
}

}  // namespace sprat

void bind_layers(nb::module_ &m, nb::class_<sprat::KernelSet> &kernels) {
    using namespace sprat;
    bind_layer<LatentAttention>(m, "LatentAttention");
    bind_layer<GroupedAttention>(m, "GroupedAttention");
    bind_layer<GatedMlp>(m, "GatedMLP");
    bind_layer<Moe>(m, "MoE");
    bind_layer<Head>(m, "Head");
    nb::class_<BoundAngles>(m, "RopeAngles").def(nb::init<const nb::object &>(), "record"_a);
    const auto in_place = [](const char *name) { return nb::arg(name).noconvert(); };
    const auto x = in_place("x"), expert_ids = in_place("expert_ids"),
               weights = in_place("weights");
    kernels
        .def("latent_attention", &latent_attention, "layer"_a, x, "angles"_a, in_place("latents"),
             "index"_a, "n_past"_a, "expanded"_a)
        .def("grouped_attention", &grouped_attention, "layer"_a, x, "angles"_a, in_place("keys"),
             in_place("values"), "index"_a, "n_past"_a)
        .def("latent_attention_each", &latent_attention_each, "layer"_a, x, "angles"_a,
             in_place("latents"), "index"_a, "n_past"_a, "expanded"_a)
        .def("grouped_attention_each", &grouped_attention_each, "layer"_a, x, "angles"_a,
             in_place("keys"), in_place("values"), "index"_a, "n_past"_a)
        .def("gated_mlp", &gated_mlp, "layer"_a, x)
        .def("moe", &moe, "layer"_a, x)
        .def("moe_route", &moe_route, "layer"_a, x, expert_ids, weights)
        .def("moe_forward_routed", &moe_forward_routed, "layer"_a, x, expert_ids, weights)
        .def("logits", &logits, "layer"_a, "x"_a, in_place("out"));
}
