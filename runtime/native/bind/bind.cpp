// runtime/kernels/native.py's view of the kernels: NumPy arrays in and out, shapes checked, the GIL
// released.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "runtime/native/bind/arrays.hpp"
#include "runtime/native/read.hpp"
#include "runtime/native/rope.hpp"
#include "runtime/native/route.hpp"

using nb::literals::operator""_a;

namespace sprat {
namespace {

Format format_called(const std::string &name) {
    for (int f = 0; f < N_FORMATS; ++f)
        if (name == kLayouts[f].name) return Format(f);
    throw std::invalid_argument("no native kernel for " + name);
}

}  // namespace

// Reads `packed`, `format.name` and `shape` of runtime/weights.py's Weight.
BoundWeight::BoundWeight(const nb::object &weight) : Matrix{}, packed(weight.attr("packed")) {
    const auto shape = nb::cast<std::vector<int64_t>>(weight.attr("shape"));
    const Format format = format_called(nb::cast<std::string>(weight.attr("format").attr("name")));
    expect(shape.size() == 2 || shape.size() == 3,
           "a weight is neither a matrix nor a stack of matrices");
    Bytes bytes;
    expect(nb::try_cast(packed, bytes, false), "packed rows are not contiguous bytes");
    const BlockLayout &layout = kLayouts[format];
    const int64_t slices = shape.size() == 3 ? shape[0] : 1, rows = shape.end()[-2],
                  cols = shape.back();
    expect(slices > 0 && rows > 0, "a weight has no rows");
    expect(cols > 0 && cols % int64_t(layout.block_size) == 0,
           "a row is not a whole number of blocks");
    const size_t row_size = size_t(cols) / layout.block_size * layout.block_bytes;
    expect(bytes.size() == size_t(slices * rows) * row_size, "packed bytes do not match the shape");
    static_cast<Matrix &>(*this) = {bytes.data(), format, slices, rows, cols, row_size};
}

BoundMlp::BoundMlp(nb::object mlp) : owner(std::make_shared<PythonRecord>(std::move(mlp))) {
    static_cast<Mlp &>(*this) = read_mlp(owner.get());
}

int64_t bytes_of(const CacheArray &entries, size_t axis) {
    return entries.stride(axis) * int64_t(entries.itemsize());
}

KvEntries entries_of(const CacheArray &entries, int64_t n, int64_t n_int8, int group) {
    const size_t last = entries.ndim() - 1;
    const auto type = entries.dtype();
    const bool is_float = type.code == uint8_t(nb::dlpack::dtype_code::Float);
    const bool is_bytes = type.code == uint8_t(nb::dlpack::dtype_code::UInt) && type.bits == 8;
    expect(entries.ndim() >= 2 && entries.stride(last) == 1, "KV entries are not contiguous");
    expect((is_float && (type.bits == 16 || type.bits == 32)) || is_bytes,
           "KV entries are neither float16, float32 nor bytes");
    const KvEntries found{static_cast<const uint8_t *>(entries.data()), bytes_of(entries, last - 1),
                          type.bits == 32, int(is_bytes ? n_int8 : 0), group};
    const int64_t width = is_bytes ? found.f16_tail_at() + 2 * (n - n_int8) : n;
    expect(int64_t(entries.shape(last)) == width, "KV entries differ in length");
    return found;
}

void expect_experts(const Ints &expert_ids, int64_t n_experts) {
    for (size_t i = 0; i < expert_ids.size(); ++i)
        expect(expert_ids.data()[i] >= 0 && expert_ids.data()[i] < n_experts,
               "a route leads to an expert that does not exist");
}

namespace {

void linear(KernelSet &set, const BoundWeight &weight, const Floats &x,
            const std::optional<Floats> &bias, Out &out) {
    const int64_t n = x.size() / weight.cols;
    expect(x.size() == size_t(n * weight.cols) && out.size() == size_t(n * weight.rows),
           "shapes of a product differ");
    expect(weight.n_slices == 1 && (!bias || bias->size() == size_t(weight.rows)),
           "bias does not match the weight");
    run(set,
        [&] { set.linear.linear(weight, x.data(), n, bias ? bias->data() : nullptr, out.data()); });
}

void embed(KernelSet &set, const BoundWeight &table, const Ints &tokens, Out &out) {
    expect(out.size() == tokens.size() * size_t(table.cols), "shapes of an embedding differ");
    for (size_t i = 0; i < tokens.size(); ++i)
        expect(tokens.data()[i] >= 0 && tokens.data()[i] < table.rows,
               "a token lies outside the table");
    run(set, [&] { set.linear.embed(table, tokens.data(), int64_t(tokens.size()), out.data()); });
}

void rms_norm(KernelSet &set, const Floats &x, const Floats &gain, float eps, Out &out) {
    const int64_t k = int64_t(gain.size()), n = int64_t(x.size()) / k;
    expect(x.size() == size_t(n * k) && out.size() == x.size(), "shapes of a norm differ");
    run(set, [&] { set.linear.rms_norm(x.data(), gain.data(), eps, n, k, out.data()); });
}

// In place, on a slice of wider heads.
void rope(Strided &x, const Floats &cos, const Floats &sin, bool interleaved) {
    const int64_t n = int64_t(x.shape(0)), heads = int64_t(x.shape(1)),
                  half = int64_t(x.shape(2)) / 2;
    expect(x.stride(2) == 1 && cos.size() == size_t(n * half) && sin.size() == cos.size(),
           "shapes of a rotation differ");
    for (int64_t t = 0; t < n; ++t)
        rotate(x.data() + t * x.stride(0), heads, x.stride(1), half, cos.data() + t * half,
               sin.data() + t * half, interleaved);
}

void swiglu(KernelSet &set, const BoundMlp &mlp, const Floats &x, Out &out) {
    const int64_t n = int64_t(x.size()) / mlp.gate.cols;
    expect(mlp.gate.n_slices == 1 && out.size() == x.size(), "shapes of an MLP differ");
    run(set, [&] { set.moe.swiglu(mlp, x.data(), n, out.data()); });
}

void route_tokens(KernelSet &set, const Floats &logits, const std::optional<Floats> &bias,
                  const MoeSpec &spec, OutInts &expert_ids, Out &weights) {
    const int64_t n = int64_t(logits.size()) / spec.n_experts;
    expect(expert_ids.size() == size_t(n * spec.n_chosen) && weights.size() == expert_ids.size(),
           "routes do not match the tokens");
    expect(!bias || bias->size() == size_t(spec.n_experts), "the bias does not match the experts");
    run(set, [&] {
        route(spec, logits.data(), bias ? bias->data() : nullptr, n, expert_ids.data(),
              weights.data());
    });
}

void experts(KernelSet &set, const BoundMlp &routed, const BoundMlp *shared, const Floats &x,
             const Ints &expert_ids, const Floats &weights, Out &out) {
    const int64_t hidden = routed.gate.cols, n = int64_t(x.size()) / hidden;
    const int64_t n_chosen = n ? int64_t(expert_ids.size()) / n : 0;
    expect(out.size() == x.size() && x.size() == size_t(n * hidden), "shapes of experts differ");
    expect(!shared || (shared->gate.cols == hidden && shared->gate.n_slices == 1),
           "shared experts do not fit the routed ones");
    expect(expert_ids.size() == size_t(n * n_chosen) && weights.size() == expert_ids.size(),
           "routes do not match the tokens");
    expect_experts(expert_ids, routed.gate.n_slices);
    run(set, [&] {
        set.moe.experts(routed, shared, x.data(), n, expert_ids.data(), weights.data(),
                        int(n_chosen), out.data());
    });
}

void gqa(KernelSet &set, const Floats &q, const CacheArray &keys, const CacheArray &values,
         float scale, Out &out) {
    expect(q.ndim() == 3 && keys.ndim() == 3 && values.ndim() == 3,
           "attention wants q (n, heads, dim), keys and values (kv_heads, t, dim)");
    const int64_t n = int64_t(q.shape(0)), dim = int64_t(q.shape(2)),
                  n_entries = int64_t(keys.shape(1));
    expect(values.shape(1) == keys.shape(1) && values.shape(0) == keys.shape(0),
           "keys and values differ in shape");
    expect(q.shape(1) % keys.shape(0) == 0 && n <= n_entries && out.size() == q.size(),
           "shapes of attention differ");
    const GroupedKv cache{entries_of(keys, dim, dim, kHeadGroup),
                          entries_of(values, dim, dim, kHeadGroup),
                          bytes_of(keys, 0),
                          bytes_of(values, 0),
                          int(keys.shape(0)),
                          n_entries};
    run(set, [&] {
        set.attention.gqa(q.data(), n, int(q.shape(1)), int(dim), cache, scale, out.data());
    });
}

void mla(KernelSet &set, const Floats &q, const CacheArray &latents, const BoundWeight &k_b,
         const BoundWeight &v_b, float scale, bool expanded, Out &out) {
    expect(q.ndim() == 3 && latents.ndim() == 2,
           "attention wants q (n, heads, dim) and latents (t, latent_dim)");
    const int64_t n = int64_t(q.shape(0)), dim = int64_t(q.shape(2)),
                  n_entries = int64_t(latents.shape(0));
    expect(k_b.n_slices == int64_t(q.shape(1)) && v_b.n_slices == k_b.n_slices,
           "k_b and v_b do not fit the heads");
    expect(v_b.cols == k_b.rows && dim >= k_b.cols && n <= n_entries &&
               int64_t(out.size()) == n * v_b.n_slices * v_b.rows,
           "shapes of latent attention differ");
    const int64_t latent_dim = k_b.rows + dim - k_b.cols;
    const KvEntries entries = entries_of(latents, latent_dim, k_b.rows, latent_group(k_b.rows));
    const LatentKv cache{entries, n_entries, &k_b, &v_b};
    run(set, [&] {
        if (expanded) set.attention.mla_expanded(q.data(), n, int(dim), cache, scale, out.data());
        else set.attention.mla_absorbed(q.data(), n, int(dim), cache, scale, out.data());
    });
}

void read_bytes(KernelSet &set, const Bytes &bytes) {
    run(set, [&] { read_all(set.context.pool, bytes.data(), int64_t(bytes.size())); });
}

std::vector<std::string> isa_names() {
    int n = 0;
    const Isa *const *isas = usable_isas(n);
    std::vector<std::string> names;
    for (int i = 0; i < n; ++i) names.emplace_back(isas[i]->name);
    return names;
}

std::vector<std::string> kernel_formats() {
    std::vector<std::string> names;
    for (const BlockLayout &layout : kLayouts) names.emplace_back(layout.name);
    return names;
}

const Isa &isa_called(const std::string &name) {
    const Isa *isa = find_isa(name.c_str());
    expect(isa != nullptr, "this processor has no such instruction set");
    return *isa;
}

}  // namespace
}  // namespace sprat

void bind_kernels(nb::module_ &m) {
    using namespace sprat;
    m.def("isa_names", &isa_names,
          "Instruction sets with kernels that this processor runs, best first.");
    m.def("kernel_formats", &kernel_formats, "Formats of weights that the kernels multiply.");
    nb::exception<Interrupted>(m, "InterruptError");
    nb::class_<Interrupt>(m, "Interrupt", "Ends kernels before they are done.")
        .def(nb::init<>())
        .def("cancel", &Interrupt::cancel)
        .def("set_deadline", &Interrupt::set_deadline, "seconds"_a);
    m.def(
        "set_interrupt", [](Interrupt *interrupt) { Interrupt::current() = interrupt; },
        "interrupt"_a.none(), "Of the kernels that this thread calls; it must stay alive.");
    nb::class_<BoundWeight>(m, "Weight", "Packed rows of a weight, read in place.")
        .def(nb::init<nb::object>(), "record"_a);
    nb::class_<BoundMlp>(m, "MLP").def(nb::init<nb::object>(), "record"_a);
    nb::class_<MoeSpec>(m, "MoESpec")
        .def(
            "__init__",
            [](MoeSpec *at, nb::object record) {
                new (at) MoeSpec(read_moe_spec(PythonRecord(std::move(record))));
            },
            "record"_a);
    const auto out = nb::arg("out").noconvert();
    nb::class_<KernelSet> kernels(
        m, "KernelSet", "The kernels of one instruction set over a thread pool of their own.");
    kernels
        .def(
            "__init__",
            [](KernelSet *at, const std::string &isa, int n_threads, const std::vector<int> &cores,
               int n_digits) { new (at) KernelSet(isa_called(isa), n_threads, cores, n_digits); },
            "isa"_a, "n_threads"_a, "cores"_a, "n_digits"_a)
        .def_prop_ro("isa", [](const KernelSet &set) { return set.context.isa.name; })
        .def_prop_ro("n_threads", [](const KernelSet &set) { return set.context.n_threads(); })
        .def("read", &read_bytes, "packed"_a)
        .def("linear", &linear, "weight"_a, "x"_a, "bias"_a.none(), out)
        .def("embed", &embed, "table"_a, "tokens"_a, out)
        .def("rms_norm", &rms_norm, "x"_a, "gain"_a, "eps"_a, out)
        .def("swiglu", &swiglu, "mlp"_a, "x"_a, out)
        .def("route", &route_tokens, "logits"_a, "bias"_a.none(), "spec"_a,
             nb::arg("expert_ids").noconvert(), nb::arg("weights").noconvert())
        .def("experts", &experts, "routed"_a, "shared"_a.none(), "x"_a, "expert_ids"_a, "weights"_a,
             out)
        .def("gqa", &gqa, "q"_a, nb::arg("keys").noconvert(), nb::arg("values").noconvert(),
             "scale"_a, out)
        .def("mla", &mla, "q"_a, nb::arg("latents").noconvert(), "k_b"_a, "v_b"_a, "scale"_a,
             "expanded"_a, out);
    bind_layers(m, kernels);
    m.def("rope", &rope, nb::arg("x").noconvert(), "cos"_a, "sin"_a, "interleaved"_a);
}
