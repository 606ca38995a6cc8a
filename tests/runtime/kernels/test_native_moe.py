"""Native routing and experts against the reference, on every instruction set."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import every_isa, kernels_of, needs_native, random_weight

from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring
from sprat.runtime.kernels import MLP, ReferenceKernels, Routes

pytestmark = needs_native
HIDDEN, WIDTH, SHARED, N_EXPERTS = 64, 96, 160, 8
few = settings(deadline=None, max_examples=15)


def moe_weights(rng, format_name):
    routed = [(N_EXPERTS, WIDTH, HIDDEN)] * 2 + [(N_EXPERTS, HIDDEN, WIDTH)]
    shared = [(SHARED, HIDDEN)] * 2 + [(HIDDEN, SHARED)]
    return (MLP(*(random_weight(rng, shape, format_name) for shape in shapes)) for shapes in (routed, shared))


def random_routes(rng, n, n_chosen):
    experts = np.stack([rng.permutation(N_EXPERTS)[:n_chosen] for _ in range(n)]).astype(np.int32)
    return Routes(experts, rng.random((n, n_chosen)).astype(np.float32))


@every_isa
@pytest.mark.parametrize("format_name", ["F32", "Q4_0", "Q8_0", "Q5_1"])
@given(n=st.integers(1, 33), n_chosen=st.integers(1, N_EXPERTS), has_shared=st.booleans())
@few
def test_experts_of_any_routes(isa, format_name, n, n_chosen, has_shared):
    rng = np.random.default_rng(n)
    routed, shared = moe_weights(rng, format_name)
    x, routes = rng.normal(size=(n, HIDDEN)).astype(np.float32), random_routes(rng, n, n_chosen)
    found = kernels_of(isa).experts(x, routes, routed, shared if has_shared else None)
    expected = ReferenceKernels().experts(x, routes, routed, shared if has_shared else None)
    # Two products, each with activations in int8: about half a percent of the output's size each.
    tolerance = 1e-5 if format_name == "F32" else 0.03
    assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)


@every_isa
def test_experts_do_not_depend_on_the_number_of_threads(isa):
    rng = np.random.default_rng(1)
    routed, shared = moe_weights(rng, "Q4_0")
    x, routes = rng.normal(size=(9, HIDDEN)).astype(np.float32), random_routes(rng, 9, 3)
    one = kernels_of(isa, 1).experts(x, routes, routed, shared)
    np.testing.assert_array_equal(kernels_of(isa, 3).experts(x, routes, routed, shared), one)


def test_a_route_to_no_expert_is_refused():
    rng = np.random.default_rng(1)
    routed, _ = moe_weights(rng, "Q4_0")
    for wrong in (-1, N_EXPERTS):
        routes = Routes(np.array([[0, wrong]], np.int32), np.ones((1, 2), np.float32))
        with pytest.raises(ValueError, match="expert that does not exist"):
            kernels_of("plain").experts(np.zeros((1, HIDDEN), np.float32), routes, routed)


@pytest.mark.parametrize(
    ("scoring", "group_score", "normalize", "n_groups_per_token"),
    list(itertools.product(Scoring, GroupScore, [False, True], [1, 2, 4])),
)
def test_routes(scoring, group_score, normalize, n_groups_per_token):
    moe = MoESpec(
        n_routed_experts=16,
        n_shared_experts=0,
        n_experts_per_token=4,
        expert_width=8,
        n_dense_layers=0,
        scoring=scoring,
        normalize=normalize,
        scaling=2.5,
        n_groups=4,
        n_groups_per_token=n_groups_per_token,
        group_score=group_score,
    )
    rng = np.random.default_rng(n_groups_per_token)
    logits, bias = rng.normal(size=(20, 16)).astype(np.float32), (rng.normal(size=16) / 5).astype(np.float32)
    for added in (None, bias):
        found, expected = (kernels.route(logits, moe, added) for kernels in (kernels_of("plain"), ReferenceKernels()))
        np.testing.assert_array_equal(found.experts, expected.experts)
        np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-5)


def test_equal_scores_go_to_the_lower_expert():
    moe = MoESpec(
        n_routed_experts=8,
        n_shared_experts=0,
        n_experts_per_token=3,
        expert_width=8,
        n_dense_layers=0,
        scoring=Scoring.SOFTMAX,
        normalize=False,
        scaling=1.0,
    )
    assert kernels_of("plain").route(np.zeros((1, 8), np.float32), moe).experts.tolist() == [[0, 1, 2]]
