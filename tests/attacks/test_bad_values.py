"""NaN and infinity in one place of a kernel's input: no rounding, maximum, softmax or choice of experts drops them."""

from __future__ import annotations

import numpy as np
import pytest
from golden_models import config_of
from memory_weights import MemoryWeights
from native_kernels import BLOCK_FORMATS, every_isa, exact_activations, kernels_of, needs_native, random_weight

from sprat.errors import BackendError
from sprat.quant.convert import first_nonfinite
from sprat.quant.formats import get_format
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring
from sprat.runtime.generate.sampling import Sampler, SamplingParams
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model
from sprat.runtime.weights import Weight

BAD = [np.nan, np.inf, -np.inf]
both_kernels = pytest.mark.parametrize(
    "make", [ReferenceKernels, pytest.param(lambda: kernels_of("plain"), marks=needs_native)]
)


@needs_native
@every_isa
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("format_name", [*BLOCK_FORMATS, "F32", "F16", "BF16"])
def test_an_activation_at_any_place_reaches_every_product(isa, format_name, bad):
    rng = np.random.default_rng(0)
    k = 256
    weight, kernels = random_weight(rng, (5, k), format_name), kernels_of(isa)
    for n in (1, 2, 9):  # GEMV of one and two tokens, GEMM
        for place in range(0, k, 1 if n == 1 else 37):
            x = rng.normal(size=(n, k)).astype(np.float32)
            x[n - 1, place] = bad
            out = kernels.linear(x, weight)
            assert not np.isfinite(out[n - 1]).any(), (n, place)
            assert np.isfinite(out[: n - 1]).all(), (n, place)


@needs_native
@every_isa
@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_every_scale_of_mxfp4_gives_the_same_or_shows(isa, n):
    """A row for each scale: finite and near the reference up to 2^95, NaN above, which float32 cannot multiply."""
    rng, stored = np.random.default_rng(n), get_format("MXFP4")
    packed = rng.integers(0, 256, (256, 2, 17), dtype=np.uint8)
    packed[..., 0] = np.arange(256)[:, None]
    weight = Weight("w", stored, (256, 64), packed.reshape(256, 34))
    x = exact_activations(rng, n, 64)
    out, expected = kernels_of(isa).linear(x, weight), ReferenceKernels().linear(x, weight)
    largest = np.abs(weight.dequantize()).max(axis=1) * np.abs(x).sum(axis=1)[:, None]
    assert np.isfinite(expected[:, :224]).all()
    assert (np.abs(out - expected)[:, :224] <= 1e-5 * largest[:, :224] + 1e-35).all()
    assert np.isnan(out[:, 224:]).all()
    assert np.isnan(expected[:, 224:]).all()


@pytest.mark.parametrize("scale", [224, 254, 255])
def test_a_scale_that_cannot_be_multiplied_is_found_by_the_check_of_blocks(scale):
    packed = np.zeros((4, 17), np.uint8)
    packed[2, 0] = scale
    assert first_nonfinite(packed, get_format("MXFP4")) == 64


@both_kernels
def test_a_norm_whose_squares_overflow_gives_no_zeros(make):
    with np.errstate(all="ignore"):
        out = make().rms_norm(np.full((1, 64), 1e30, np.float32), np.ones(64, np.float32), 1e-6)
    assert np.isnan(out).all()


def moe_spec(scoring, groups):
    return MoESpec(
        n_routed_experts=16,
        n_shared_experts=0,
        n_experts_per_token=3,
        expert_width=32,
        n_dense_layers=0,
        scoring=scoring,
        normalize=True,
        scaling=1.0,
        n_groups=groups,
        n_groups_per_token=max(1, groups // 2),
        group_score=GroupScore.TOP2_SUM if scoring is Scoring.SIGMOID else GroupScore.MAX,
    )


@both_kernels
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("scoring", Scoring)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("of_bias", [False, True])
def test_a_bad_router_logit_or_bias_shows_in_the_weights(make, groups, scoring, bad, of_bias):
    rng = np.random.default_rng(0)
    for expert in range(16):
        logits, bias = rng.normal(size=(2, 16)).astype(np.float32), rng.normal(size=16).astype(np.float32)
        if of_bias:
            bias[expert] = bad
        else:
            logits[1, expert] = bad
        with np.errstate(all="ignore"):
            routes = make().route(logits, moe_spec(scoring, groups), bias)
        assert np.isnan(routes.weights[1]).any(), expert
        assert (np.isnan(routes.weights[0]).any()) == of_bias, expert
        assert ((routes.experts >= 0) & (routes.experts < 16)).all()


@needs_native
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("scoring", Scoring)
def test_bad_routers_choose_the_experts_of_the_reference(groups, scoring):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(64, 16)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = np.nan
    logits[rng.random(logits.shape) < 0.05] = np.inf
    with np.errstate(all="ignore"):
        expected = ReferenceKernels().route(logits, moe_spec(scoring, groups))
    found = kernels_of("plain").route(logits, moe_spec(scoring, groups))
    rows = np.isfinite(logits).all(axis=1) | (scoring is Scoring.SIGMOID)  # one NaN makes a softmax NaN throughout
    np.testing.assert_array_equal(found.experts[rows], expected.experts[rows])
    np.testing.assert_array_equal(np.isnan(found.weights[rows]), np.isnan(expected.weights[rows]))


def damaged_rows(cache, storage, bad, place):
    """Write ``bad`` into the cache of every layer: into one entry of each plane, at ``place`` of its elements."""
    for plane in cache._planes:
        rows = plane[:, :, 2]
        if storage == "int8":
            groups = cache._layouts[0].n_groups
            at = groups * cache._layouts[0].group + 2 * (place % groups)
            rows[..., at : at + 2] = np.frombuffer(np.float16(bad).tobytes(), np.uint8)
        else:
            rows[..., place % rows.shape[-1]] = bad


@both_kernels
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
@pytest.mark.parametrize("family", ["deepseek-v2-lite", "r1-distill-llama", "qwen3-moe"])
def test_a_bad_element_of_the_cache_shows(make, family, storage, bad):
    spec = spec_from_config(config_of(family))
    model = Model(spec, MemoryWeights.random(spec, "Q8_0"), make())
    for place, n_new in ((0, 1), (7, 1), (33, 12)):
        cache = model.new_cache(32, storage)
        model.forward(np.arange(1, 9), cache)
        damaged_rows(cache, storage, bad, place)
        logits = model.forward(np.arange(1, 1 + n_new), cache).ravel()
        assert not np.isfinite(logits).all(), (place, n_new)


@pytest.mark.parametrize("bad", [np.nan, np.inf])  # minus infinity masks a token
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_sampler_refuses_one_bad_logit(bad, temperature):
    for place in range(50):
        logits = np.linspace(-1, 1, 50, dtype=np.float32)
        logits[place] = bad
        with pytest.raises(BackendError, match="inspect --check"):
            Sampler(SamplingParams(temperature=temperature, seed=0)).sample(logits)
