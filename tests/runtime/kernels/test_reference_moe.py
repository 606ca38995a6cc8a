"""Routing of hand-written examples, and experts against a loop over tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.quant.formats import get_format
from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring
from sprat.runtime.kernels import MLP, ReferenceKernels, Routes
from sprat.runtime.weights import Weight

GREEDY = MoESpec(
    n_routed_experts=6,
    n_shared_experts=1,
    n_experts_per_token=2,
    expert_width=4,
    n_dense_layers=0,
    scoring=Scoring.SOFTMAX,
    normalize=False,
    scaling=1.0,
)
LIMITED = replace(GREEDY, n_groups=3, n_groups_per_token=1, scaling=16.0)
NOAUX = replace(
    LIMITED, scoring=Scoring.SIGMOID, normalize=True, scaling=2.5, group_score=GroupScore.TOP2_SUM, correction_bias=True
)


def logits_of(probabilities):
    return np.log(np.array([probabilities], np.float32))


def sigmoid_logits(scores):
    scores = np.array([scores], np.float32)
    return np.log(scores / (1 - scores))


def test_greedy_routing_takes_the_largest_probabilities():
    routes = ReferenceKernels().route(logits_of([0.1, 0.3, 0.05, 0.25, 0.2, 0.1]), GREEDY)
    np.testing.assert_array_equal(routes.experts, [[1, 3]])
    np.testing.assert_allclose(routes.weights, [[0.3, 0.25]], rtol=1e-6)


def test_the_first_of_equal_experts_is_selected():
    routes = ReferenceKernels().route(np.zeros((1, 6), np.float32), GREEDY)
    np.testing.assert_array_equal(routes.experts, [[0, 1]])


def test_v2_stays_within_the_group_of_the_single_best_expert():
    routes = ReferenceKernels().route(logits_of([0.2, 0.21, 0.3, 0.01, 0.18, 0.1]), LIMITED)
    np.testing.assert_array_equal(routes.experts, [[2, 3]])  # although 0 and 1 have the larger sum
    np.testing.assert_allclose(routes.weights, [[16 * 0.3, 16 * 0.01]], rtol=1e-5)


def test_v3_stays_within_the_group_of_the_best_two_together():
    scores = [0.6, 0.62, 0.9, 0.1, 0.5, 0.3]
    routes = ReferenceKernels().route(sigmoid_logits(scores), NOAUX, np.zeros(6, np.float32))
    np.testing.assert_array_equal(routes.experts, [[1, 0]])
    np.testing.assert_allclose(routes.weights, [[2.5 * 0.62 / 1.22, 2.5 * 0.6 / 1.22]], rtol=1e-5)


def test_the_correction_bias_changes_the_selection_and_not_the_weights():
    bias = np.array([0, 0, 0, 0, 0.9, 0.8], np.float32)
    routes = ReferenceKernels().route(sigmoid_logits([0.6, 0.62, 0.9, 0.1, 0.5, 0.3]), NOAUX, bias)
    np.testing.assert_array_equal(routes.experts, [[4, 5]])
    np.testing.assert_allclose(routes.weights, [[2.5 * 0.5 / 0.8, 2.5 * 0.3 / 0.8]], rtol=1e-5)


def test_a_negative_bias_never_selects_an_expert_of_another_group():
    bias = np.full(6, -5.0, np.float32)
    routes = ReferenceKernels().route(sigmoid_logits([0.1, 0.2, 0.9, 0.8, 0.3, 0.3]), NOAUX, bias)
    np.testing.assert_array_equal(routes.experts, [[2, 3]])


@given(st.integers(1, 33), st.integers(1, 6))
def test_routes_are_distinct_experts_best_first(n, k):
    logits = np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)
    routes = ReferenceKernels().route(logits, replace(GREEDY, n_experts_per_token=k))
    assert routes.experts.dtype == np.int32
    assert all(len(set(row)) == k for row in routes.experts.tolist())
    assert (np.diff(routes.weights, axis=1) <= 0).all()


class CountingWeight(Weight):
    """A stacked weight that records which experts are used."""

    taken: list[int] = []  # noqa: RUF012  # shared on purpose: the weight itself is frozen

    def __getitem__(self, index):
        self.taken.append(index)
        return super().__getitem__(index)


@pytest.fixture
def moe_weights():
    rng = np.random.default_rng(0)
    q8, f32 = get_format("Q8_0"), get_format("F32")
    arrays = {name: rng.normal(size=(6, 32, 32)).astype(np.float32) / 6 for name in ("gate", "up", "down")}
    routed = MLP(*(CountingWeight(name, q8, array.shape, q8.quantize(array)) for name, array in arrays.items()))
    shared = MLP(*(Weight(name, f32, (32, 32), f32.quantize(array[0])) for name, array in arrays.items()))
    CountingWeight.taken.clear()
    return routed, shared


def silu_mlp(x, gate, up, down):
    inner = x @ gate.T
    return (inner / (1 + np.exp(-inner)) * (x @ up.T)) @ down.T


@pytest.mark.parametrize("n", [1, 2, 9, 33])
def test_experts_are_the_weighted_sum_of_their_mlps(moe_weights, n):
    routed, shared = moe_weights
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 32)).astype(np.float32)
    experts = np.array([rng.permutation(6)[:2] for _ in range(n)], np.int32)
    routes = Routes(experts, rng.random((n, 2), np.float32))
    dense = [w.dequantize() for w in (routed.gate, routed.up, routed.down)]
    expected = silu_mlp(x, *(w.dequantize() for w in (shared.gate, shared.up, shared.down))).astype(np.float64)
    for token, place in np.ndindex(n, 2):
        matrices = [w[experts[token, place]] for w in dense]
        expected[token] += routes.weights[token, place] * silu_mlp(x[token], *matrices)
    np.testing.assert_allclose(ReferenceKernels().experts(x, routes, routed, shared), expected, atol=1e-5)


def test_only_selected_experts_are_dequantized_each_once(moe_weights):
    routed, shared = moe_weights
    experts = np.array([[4, 1], [1, 4], [4, 5]], np.int32)
    routes = Routes(experts, np.ones((3, 2), np.float32))
    ReferenceKernels(dense_bytes=0).experts(np.ones((3, 32), np.float32), routes, routed, shared)
    assert set(CountingWeight.taken) == {1, 4, 5}


def test_without_shared_experts_the_sum_is_of_routed_ones(moe_weights):
    routed, _ = moe_weights
    routes = Routes(np.array([[0, 1]], np.int32), np.zeros((1, 2), np.float32))
    np.testing.assert_array_equal(ReferenceKernels().experts(np.ones((1, 32), np.float32), routes, routed), 0)
