// Consistency of the shapes of a sublayer's weights, checked once when it is bound.
#include "runtime/native/layers.hpp"

#include <utility>

#include "runtime/native/expect.hpp"

namespace sprat {
namespace {

void expect_size(const Vector &values, int64_t n) {
    expect(values.data && values.size == n, "a norm or bias does not fit its layer");
}
void expect_size_if_present(const Vector &values, int64_t n) {
    if (values.data) expect_size(values, n);
}

void expect_groups(const MoeSpec &spec) {
    expect(spec.n_chosen >= 1 && spec.n_chosen <= spec.n_experts,
           "more experts are chosen than there are");
    expect(spec.n_groups >= 1 && spec.n_experts % spec.n_groups == 0,
           "experts do not fit their groups");
}

}  // namespace

Mlp read_mlp(const Record *record) {
    if (!record) return {};
    const Mlp mlp{record->matrix("gate"), record->matrix("up"), record->matrix("down")};
    const Matrix &gate = mlp.gate, &up = mlp.up, &down = mlp.down;
    expect(up.rows == gate.rows && up.cols == gate.cols && up.n_slices == gate.n_slices,
           "gate and up differ in shape");
    expect(down.cols == gate.rows && down.rows == gate.cols && down.n_slices == gate.n_slices,
           "the shape of down does not fit that of gate");
    return mlp;
}

MoeSpec read_moe_spec(const Record &record) {
    const auto integer = [&](const char *name) { return int(record.number(name)); };
    const std::string scoring = record.text("scoring");
    expect(scoring == "sigmoid" || scoring == "softmax",
           "router scores are neither sigmoid nor softmax");
    const MoeSpec spec{integer("n_routed_experts"),
                       integer("n_experts_per_token"),
                       integer("n_groups"),
                       integer("n_groups_per_token"),
                       scoring == "sigmoid",
                       record.flag("normalize"),
                       record.text("group_score") == "top2_sum",
                       float(record.number("scaling"))};
    expect_groups(spec);
    return spec;
}

LatentAttention::LatentAttention(RecordPtr fields) : record(std::move(fields)) {
    const int64_t hidden = output.rows;
    expect(q.rows % heads() == 0 && rope() > 0 && rope() % 2 == 0,
           "queries do not fit their heads");
    expect(kv_a.rows == rank() + rope() && kv_a.cols == hidden, "latents do not fit k_b");
    expect(v_b.n_slices == heads() && v_b.cols == rank(), "values do not fit k_b");
    expect(output.cols == heads() * v_b.rows, "the output does not fit the values");
    expect((compresses_queries() ? q_a : q).cols == hidden, "queries do not fit the hidden states");
    expect(!compresses_queries() || (q.cols == q_a.rows && q_a_norm.gain.data),
           "queries do not fit their compression");
    expect_size(norm.gain, hidden), expect_size(kv_a_norm.gain, rank());
    expect_size_if_present(q_a_norm.gain, q.cols);
}

GroupedAttention::GroupedAttention(RecordPtr fields) : record(std::move(fields)) {
    expect(head_dim > 0 && head_dim % 2 == 0 && q.rows % head_dim == 0 && k.rows % head_dim == 0,
           "projections do not fit the size of a head");
    expect(heads() % kv_heads() == 0, "query heads do not fit the key heads");
    expect(v.rows == k.rows && output.cols == q.rows, "values do not fit the keys");
    expect(q.cols == output.rows && k.cols == q.cols && v.cols == q.cols,
           "projections do not fit the hidden states");
    expect_size(norm.gain, q.cols);
    expect_size_if_present(q_bias, q.rows), expect_size_if_present(k_bias, k.rows);
    expect_size_if_present(v_bias, v.rows);
    expect_size_if_present(q_norm.gain, head_dim), expect_size_if_present(k_norm.gain, head_dim);
}

GatedMlp::GatedMlp(RecordPtr fields) : record(std::move(fields)) {
    expect(mlp.gate.n_slices == 1, "a dense MLP has stacked weights");
    expect_size(norm.gain, mlp.gate.cols);
}

Moe::Moe(RecordPtr fields) : record(std::move(fields)) {
    expect(router.rows == spec.n_experts && routed.gate.n_slices == spec.n_experts,
           "the router does not fit its experts");
    expect(router.cols == routed.gate.cols, "the router does not fit the hidden states");
    expect(
        shared.is_absent() || (shared.gate.cols == routed.gate.cols && shared.gate.n_slices == 1),
        "shared experts do not fit the routed ones");
    expect_size(norm.gain, routed.gate.cols), expect_size_if_present(bias, spec.n_experts);
}

Head::Head(RecordPtr fields) : record(std::move(fields)) { expect_size(norm.gain, output.cols); }

}  // namespace sprat
