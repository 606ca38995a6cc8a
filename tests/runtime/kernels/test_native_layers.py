"""Fused native sublayers: the same bits as their steps, and the reference's values within a tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import every_isa, kernels_of, needs_native, random_weight

from sprat.runtime.arch.attention import GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.arch.moe import MoESpec, Scoring
from sprat.runtime.arch.rope import RopeSpec, RopeTable
from sprat.runtime.cache import STORAGES, KVCache, LatentCache
from sprat.runtime.kernels import (
    MLP,
    GatedMLP,
    GroupedAttention,
    Head,
    LatentAttention,
    MoE,
    ReferenceKernels,
)
from sprat.runtime.kernels.steps import StepByStep

pytestmark = needs_native
HIDDEN, HEADS, KV_HEADS, DIM, WIDTH, N_EXPERTS = 96, 4, 2, 32, 160, 6
MLA = LatentAttentionSpec(
    n_heads=HEADS, q_lora_rank=None, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32
)
GROUPED = GroupedAttentionSpec(n_heads=HEADS, n_kv_heads=KV_HEADS, head_dim=DIM)
MOE = MoESpec(
    n_routed_experts=N_EXPERTS,
    n_shared_experts=1,
    n_experts_per_token=2,
    expert_width=WIDTH,
    n_dense_layers=0,
    scoring=Scoring.SIGMOID,
    normalize=True,
    scaling=1.5,
)
few = settings(deadline=None, max_examples=8)
formats = pytest.mark.parametrize("format_name", ["F32", "Q4_0", "Q8_0", "Q5_1"])
# Relative to what is added. Int8 activations change a product by about half a percent.
TOLERANCE = {"F32": 1e-3, "Q4_0": 0.05, "Q8_0": 0.05, "Q5_1": 0.05}
# Attention over float16 and int8 caches multiplies in int16; the largest error found was 1.13e-3.
ATTENTION_TOLERANCE = {"f32": 1e-3, "f16": 3e-3, "int8": 3e-3}


def gain(rng, n):
    return (1 + rng.normal(size=n) / 4).astype(np.float32)


def latent_layer(rng, format_name, *, compressed):
    def weight(*shape):
        return random_weight(rng, shape, format_name)

    return LatentAttention(
        norm=gain(rng, HIDDEN),
        q_a=weight(64, HIDDEN) if compressed else None,
        q_a_norm=gain(rng, 64) if compressed else None,
        q=weight(HEADS * MLA.qk_head_dim, 64 if compressed else HIDDEN),
        kv_a=weight(MLA.latent_dim, HIDDEN),
        kv_a_norm=gain(rng, MLA.kv_lora_rank),
        k_b=weight(HEADS, MLA.kv_lora_rank, MLA.qk_nope_head_dim),
        v_b=weight(HEADS, MLA.v_head_dim, MLA.kv_lora_rank),
        output=weight(HIDDEN, HEADS * MLA.v_head_dim),
        eps=1e-6,
        latent_eps=1e-2,
        scale=0.2,
    )


def grouped_layer(rng, format_name, *, biased, normed):
    def weight(*shape):
        return random_weight(rng, shape, format_name)

    def bias(n):
        return rng.normal(size=n).astype(np.float32) if biased else None

    return GroupedAttention(
        norm=gain(rng, HIDDEN),
        q=weight(HEADS * DIM, HIDDEN),
        k=weight(KV_HEADS * DIM, HIDDEN),
        v=weight(KV_HEADS * DIM, HIDDEN),
        q_bias=bias(HEADS * DIM),
        k_bias=bias(KV_HEADS * DIM),
        v_bias=bias(KV_HEADS * DIM),
        q_norm=gain(rng, DIM) if normed else None,
        k_norm=gain(rng, DIM) if normed else None,
        output=weight(HIDDEN, HEADS * DIM),
        head_dim=DIM,
        eps=1e-6,
        scale=0.2,
    )


def mlp(rng, format_name, *experts):
    shapes = [(*experts, WIDTH, HIDDEN)] * 2 + [(*experts, HIDDEN, WIDTH)]
    return MLP(*(random_weight(rng, shape, format_name) for shape in shapes))


def moe_layer(rng, format_name, *, shared):
    return MoE(
        norm=gain(rng, HIDDEN),
        router=random_weight(rng, (N_EXPERTS, HIDDEN), "F32"),
        bias=rng.normal(size=N_EXPERTS).astype(np.float32) / 8,
        moe=MOE,
        routed=mlp(rng, format_name, N_EXPERTS),
        shared=mlp(rng, format_name) if shared else None,
        eps=1e-6,
    )


class Steps(StepByStep):
    """The kernels, with sublayers run step by step."""

    def __init__(self, kernels):
        self._kernels = kernels

    def __getattr__(self, name):
        return getattr(self._kernels, name)


def hidden_states(rng, n):
    return (rng.normal(size=(n, HIDDEN)) * 3).astype(np.float32)


def check(apply, x, isa, format_name, storage="f32"):
    """``apply(kernels, x)`` in one call has the bits of its steps, and is close to the reference."""
    fused, steps, reference = x.copy(), x.copy(), x.copy()
    apply(kernels_of(isa), fused)
    apply(Steps(kernels_of(isa)), steps)
    np.testing.assert_array_equal(fused, steps)
    apply(ReferenceKernels(), reference)
    added = np.linalg.norm(reference - x)
    tolerance = max(TOLERANCE[format_name], ATTENTION_TOLERANCE[storage])
    assert np.linalg.norm(fused - reference) < tolerance * added


def attend_twice(layer, new_cache, angles, n_past, n, attend):
    """A call on ``n`` tokens at depth ``n_past``; the caches of all kernels must hold the same."""

    def apply(kernels, x):
        cache = new_cache()
        rng = np.random.default_rng(0)
        if n_past:
            attend(kernels, hidden_states(rng, n_past), layer, angles(0, n_past), cache)
            cache.advance(n_past)
        attend(kernels, x, layer, angles(n_past, n), cache)

    return apply


@every_isa
@formats
@pytest.mark.parametrize("storage", STORAGES)
@given(n=st.integers(1, 33), n_past=st.integers(0, 70), compressed=st.booleans(), absorbed=st.booleans())
@few
def test_latent_attention(isa, format_name, storage, n, n_past, compressed, absorbed):
    rng = np.random.default_rng(n)
    layer = latent_layer(rng, format_name, compressed=compressed)
    angles = RopeTable(RopeSpec(dim=MLA.qk_rope_head_dim, theta=1e4, interleaved=True)).angles
    form = "absorbed" if absorbed else "expanded"

    def attend(kernels, x, layer, angles, cache):
        kernels.latent_attention(x, layer, angles, cache, 1, form)

    apply = attend_twice(layer, lambda: LatentCache(MLA.planes, 2, 128, storage), angles, n_past, n, attend)
    check(apply, hidden_states(rng, n), isa, format_name, storage)


@every_isa
@formats
@pytest.mark.parametrize("storage", STORAGES)
@given(n=st.integers(1, 33), n_past=st.integers(0, 70), biased=st.booleans(), normed=st.booleans())
@few
def test_grouped_attention(isa, format_name, storage, n, n_past, biased, normed):
    rng = np.random.default_rng(n)
    layer = grouped_layer(rng, format_name, biased=biased, normed=normed)
    angles = RopeTable(RopeSpec(dim=DIM, theta=1e4, interleaved=biased != normed)).angles

    def attend(kernels, x, layer, angles, cache):
        kernels.grouped_attention(x, layer, angles, cache, 1)

    apply = attend_twice(layer, lambda: KVCache(GROUPED.planes, 2, 128, storage), angles, n_past, n, attend)
    check(apply, hidden_states(rng, n), isa, format_name, storage)


@every_isa
@formats
@given(n=st.integers(1, 33), shared=st.booleans(), observed=st.booleans())
@few
def test_moe(isa, format_name, n, shared, observed):
    rng = np.random.default_rng(n)
    layer = moe_layer(rng, format_name, shared=shared)
    seen = []
    observe = (lambda experts: seen.append(experts.copy())) if observed else None
    check(lambda kernels, x: kernels.moe(x, layer, observe), hidden_states(rng, n), isa, format_name)
    assert len(seen) == 3 * observed
    for experts in seen:
        assert experts.shape == (n, MOE.n_experts_per_token)
        np.testing.assert_array_equal(experts, seen[0])


@every_isa
@formats
@given(n=st.integers(1, 33))
@few
def test_gated_mlp_and_logits(isa, format_name, n):
    rng = np.random.default_rng(n)
    layer = GatedMLP(norm=gain(rng, HIDDEN), mlp=mlp(rng, format_name), eps=1e-6)
    x = hidden_states(rng, n)
    check(lambda kernels, x: kernels.gated_mlp(x, layer), x, isa, format_name)
    head = Head(norm=gain(rng, HIDDEN), output=random_weight(rng, (100, HIDDEN), format_name), eps=1e-6)
    found, steps = (kernels.logits(x, head) for kernels in (kernels_of(isa), Steps(kernels_of(isa))))
    np.testing.assert_array_equal(found, steps)
    expected = ReferenceKernels().logits(x, head)
    assert np.linalg.norm(found - expected) < TOLERANCE[format_name] * np.linalg.norm(expected)


@every_isa
@pytest.mark.parametrize("extreme", [0.0, 1e-30, 1e30, np.inf, np.nan])
def test_extreme_hidden_states_give_the_bits_of_the_steps(isa, extreme):
    rng = np.random.default_rng(0)
    layer = moe_layer(rng, "Q4_0", shared=True)
    attention = latent_layer(rng, "Q4_0", compressed=True)
    angles = RopeTable(RopeSpec(dim=MLA.qk_rope_head_dim, theta=1e4, interleaved=True)).angles(0, 2)
    x = hidden_states(rng, 2)
    x[1, 3:40] = extreme
    fused, steps = x.copy(), x.copy()
    for kernels, states in ((kernels_of(isa), fused), (Steps(kernels_of(isa)), steps)):
        kernels.latent_attention(states, attention, angles, LatentCache(MLA.planes, 1, 4, "f16"), 0, "absorbed")
        if np.isfinite(extreme):  # the routing of a token whose scores are NaN is not defined
            kernels.moe(states, layer)
    np.testing.assert_array_equal(fused, steps)
    # The few tokens of a pass attend one after the other: a KV entry that is not finite reaches its own token and later
    # ones. The square of 1e30 overflows in RMSNorm.
    assert np.isfinite(fused[0]).all()
    assert np.isfinite(fused[1]).all() == (extreme < 1)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_layers_do_not_depend_on_the_number_of_threads(n_threads):
    rng = np.random.default_rng(5)
    layer, x = moe_layer(rng, "Q4_0", shared=True), hidden_states(rng, 9)
    one, many = x.copy(), x.copy()
    kernels_of("", 1).moe(one, layer)
    kernels_of("", n_threads).moe(many, layer)
    np.testing.assert_array_equal(many, one)


def test_arguments_that_do_not_fit_are_refused_before_anything_is_written():
    rng = np.random.default_rng(6)
    layer, kernels = latent_layer(rng, "Q8_0", compressed=False), kernels_of("")
    table = RopeTable(RopeSpec(dim=MLA.qk_rope_head_dim, theta=1e4, interleaved=True))
    cache, x = LatentCache(MLA.planes, 2, 4), hidden_states(rng, 5)
    with pytest.raises(ValueError, match="cache is full"):
        kernels.latent_attention(x, layer, table.angles(0, 5), cache, 0, "absorbed")
    with pytest.raises(ValueError, match="angles do not fit"):
        kernels.latent_attention(x[:3], layer, table.angles(0, 5), cache, 0, "absorbed")
    with pytest.raises(ValueError, match="another model"):
        kernels.latent_attention(x[:3], layer, table.angles(0, 3), cache, 2, "absorbed")
    with pytest.raises(ValueError, match="do not fit the layer"):
        kernels.moe(x[:, :64].copy(), moe_layer(rng, "Q8_0", shared=False))
    assert not cache.plane(0).any()


def test_a_layer_whose_weights_do_not_fit_together_is_refused():
    rng = np.random.default_rng(7)
    whole = grouped_layer(rng, "Q8_0", biased=True, normed=True)
    fields = {name: getattr(whole, name) for name in GroupedAttention.__slots__}
    cache = KVCache(GROUPED.planes, 2, 4)
    angles = RopeTable(RopeSpec(dim=DIM, theta=1e4, interleaved=True)).angles(0, 1)
    for wrong in ({"norm": gain(rng, HIDDEN - 1)}, {"k": random_weight(rng, (DIM, HIDDEN), "Q8_0")}, {"head_dim": 24}):
        with pytest.raises(ValueError, match="fit"):
            kernels_of("").grouped_attention(
                hidden_states(rng, 1), GroupedAttention(**(fields | wrong)), angles, cache, 0
            )
