"""Measured costs: what a probe says is what the model shows."""

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.export.quality.measuring.layer_pass import LayerPass, Replaced
from sprat.export.quality.measuring.measure import measure
from sprat.export.quality.measuring.measurements import Measurements
from sprat.export.quality.measuring.score import score
from sprat.export.quality.measuring.statistics import MatrixMoments
from sprat.export.quality.measuring.store import load_measurements, save_measurements
from sprat.export.quality.rounder import round_weight
from sprat.export.source.checkpoint import Checkpoint
from sprat.quant.formats import get_format
from sprat.quant.recipe import is_kept_f32
from sprat.quant.round import Effort
from sprat.runtime.kernels import ReferenceKernels

SEQUENCES = [np.random.default_rng(seed).integers(4, 400, 24).astype(np.int32) for seed in range(4)]
FORMATS = [get_format(name) for name in ("Q4_0", "Q5_0", "Q8_0", "F16")]


@pytest.fixture(scope="module", params=["deepseek2", "qwen2"])
def measured(request, tmp_path_factory):
    source = Checkpoint.open(
        write_checkpoint(tmp_path_factory.mktemp("c") / "source", request.param, num_hidden_layers=3)
    )
    return source, measure(source.spec, source, SEQUENCES, FORMATS, n_probes=4, effort=Effort(feedback=False))


def matrices(source):
    return [n for n, t in source.tensors.items() if len(t.shape) > 1 and not is_kept_f32(n)]


def blindly(weight, format):
    return round_weight(weight, MatrixMoments(1, weight.shape[-1]), format, Effort(feedback=False), ReferenceKernels(0))


def test_every_matrix_has_a_cost(measured):
    source, found = measured
    assert sorted(found.kld) == sorted(found.errors) == sorted(matrices(source))
    for name in matrices(source):
        costs = [found.cost(name, format.name) for format in FORMATS]
        assert costs == sorted(costs, reverse=True), name
        assert costs[0] == pytest.approx(found.kld[name]["Q4_0"])


def test_costs_rank_tensors_as_rounding_each_alone_does(measured):
    source, found = measured
    layers = LayerPass(source.spec, source, SEQUENCES)
    alone = score(
        layers,
        {n: Replaced(source, {n: blindly(source.weight(n), get_format("Q4_0"))}) for n in matrices(source)},
    )
    names = matrices(source)
    real = np.log([alone[name].mean for name in names])
    said = np.log([found.kld[name]["Q4_0"] for name in names])
    ranks = [np.argsort(np.argsort(values)) for values in (real, said)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    assert abs(np.median(said - real)) < 0.7


@pytest.mark.parametrize(
    ("kld", "format", "cost"),
    [
        ({"Q4_0": 1.0, "Q2_K": 100.0}, "Q8_0", 0.01),  # in proportion below the finest probe
        ({"Q4_0": 1.0, "Q2_K": 100.0}, "Q4_0", 1.0),
        ({"Q4_0": 1.0, "Q2_K": 100.0}, "Q3_K", 16.0),  # the square of the error, as from Q4_0 to Q2_K
        ({"Q4_0": 1.0, "Q2_K": 100.0}, "Q2_K", 100.0),
        ({"Q4_0": 1.0, "Q2_K": 5.0}, "Q3_K", 4.0),  # never less than in proportion
        ({"Q4_0": 1.0}, "Q3_K", 4.0**1.3),
    ],
)
def test_costs_are_a_power_law_through_the_probes(kld, format, cost):
    errors = {"Q8_0": 0.01, "Q4_0": 1.0, "Q3_K": 4.0, "Q2_K": 10.0}
    assert Measurements(0, kld={"a": kld}, errors={"a": errors}).cost("a", format) == pytest.approx(cost)


def test_a_coarse_format_is_probed_where_rows_divide(tmp_path):
    source = Checkpoint.open(write_checkpoint(tmp_path / "source", "qwen2", num_hidden_layers=1, hidden_size=64))
    formats = [get_format(name) for name in ("Q4_0", "Q2_0", "Q8_0")]
    found = measure(source.spec, source, SEQUENCES, formats, n_probes=2, effort=Effort(feedback=False))
    probed = {name: set(klds) for name, klds in found.kld.items()}
    for name, klds in found.kld.items():
        divides = source.tensors[name].shape[-1] % 64 == 0
        assert probed[name] == ({"Q4_0", "Q2_0"} if divides else {"Q4_0"})
        assert not divides or klds["Q2_0"] > 2 * klds["Q4_0"]


def test_experts_are_counted(measured):
    source, found = measured
    if source.spec.moe is None:
        assert not found.expert_tokens or all("attn" in name for name in found.expert_tokens)
        return
    counted = found.expert_tokens["blk.2.ffn_up_exps.weight"]
    assert sum(counted) == source.spec.moe.n_experts_per_token * sum(map(len, SEQUENCES))


def test_measurements_can_be_kept(measured, tmp_path):
    _, found = measured
    save_measurements(tmp_path / "sub" / "kept.npz", found)
    again = load_measurements(tmp_path / "sub" / "kept.npz")
    assert (again.kld, again.errors, again.expert_tokens) == (found.kld, found.errors, found.expert_tokens)
    assert np.array_equal(again.head_moments, found.head_moments)
    assert all(np.array_equal(again.mean_squares[name], rows) for name, rows in found.mean_squares.items())


def test_damaged_measurements_are_made_again(measured, tmp_path):
    path = tmp_path / "kept.npz"
    assert load_measurements(path) is None
    save_measurements(path, measured[1])
    path.write_bytes(path.read_bytes()[:1000])
    assert load_measurements(path) is None
    path.write_bytes(b"not a file of arrays")
    assert load_measurements(path) is None
