"""Invalid tokens and tensors, expanded or absorbed MLA, and weights in block formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from memory_weights import MemoryWeights
from published_configs import PUBLISHED

from sprat.errors import CheckpointError, PromptError
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model

DEEPSEEK = spec_from_config(
    PUBLISHED["DeepSeek-V3"]
    | {
        "hidden_size": 64,
        "intermediate_size": 96,
        "kv_lora_rank": 32,
        "moe_intermediate_size": 32,
        "n_routed_experts": 16,
        "num_attention_heads": 4,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": None,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "vocab_size": 100,
    }
)
LLAMA = spec_from_config(
    PUBLISHED["DeepSeek-R1-Distill-Llama-8B"]
    | {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "vocab_size": 100,
    }
)
both = pytest.mark.parametrize("spec", [DEEPSEEK, LLAMA], ids=["deepseek2", "llama"])


def load(spec, format_name="F32"):
    return Model(spec, MemoryWeights.random(spec, format_name), ReferenceKernels())


@both
@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ([], "at least one"),
        ([[1, 2]], "at least one"),
        ([1.5], "at least one"),
        ([5, 100], "token id 100"),
        ([-1], "token id -1"),
        ([2**40], "109951"),
    ],
)
def test_invalid_tokens_are_refused(spec, tokens, problem):
    model = load(spec)
    with pytest.raises(PromptError, match=problem):
        model.forward(tokens, model.new_cache(8))


@both
def test_a_prompt_longer_than_the_cache_leaves_it_unchanged(spec):
    model = load(spec)
    cache = model.new_cache(4)
    before = model.forward([1, 2], cache)
    with pytest.raises(PromptError, match="3 more do not fit"):
        model.forward([3, 4, 5], cache)
    cache.truncate(1)
    np.testing.assert_allclose(model.forward([2], cache), before, rtol=1e-4, atol=1e-5)


@both
def test_all_wrong_tensors_are_in_one_error(spec):
    weights = MemoryWeights.random(spec)
    del weights.arrays["blk.1.attn_norm.weight"]
    weights.arrays["output.weight"] = np.zeros((99, 64), np.float32)
    weights.arrays["blk.0.attn_q_norm.weight"] = np.zeros(64, np.float32)
    with pytest.raises(CheckpointError) as caught:
        Model(spec, weights, ReferenceKernels())
    assert "1 missing: 'blk.1.attn_norm.weight'" in str(caught.value)
    assert "1 with size mismatch: 'output.weight' is (99, 64), expected (100, 64)" in str(caught.value)
    assert "1 unexpected: 'blk.0.attn_q_norm.weight'" in str(caught.value)


def test_tensors_of_multi_token_prediction_are_skipped():
    weights = MemoryWeights.random(DEEPSEEK)
    weights.arrays["blk.4.nextn.eh_proj.weight"] = np.zeros((64, 128), np.float32)
    assert Model(DEEPSEEK, weights, ReferenceKernels()).spec is DEEPSEEK


@both
@pytest.mark.parametrize("format_name", ["Q8_0", "F16"])
def test_block_formats_give_nearly_the_same_logits(spec, format_name):
    tokens = np.arange(20) * 7 % 100
    exact, packed = (
        model.forward(tokens, model.new_cache(20), all_logits=True) for model in (load(spec), load(spec, format_name))
    )
    difference = np.abs(exact - packed).max(axis=1) / np.abs(exact).max()
    assert np.median(difference) < 0.05  # the median: another expert in the routing changes a token's logits much more


@both
def test_a_cache_in_float16_gives_nearly_the_same_logits(spec):
    model = load(spec)
    tokens = np.arange(20) * 7 % 100
    exact, rounded = (
        np.concatenate([model.forward([token], cache) for token in tokens])
        for cache in (model.new_cache(20), model.new_cache(20, "f16"))
    )
    assert np.median(np.abs(exact - rounded).max(axis=1)) < 0.01 * np.abs(exact).max()


def test_decode_is_absorbed_and_prefill_is_expanded():
    attention = spec_from_config(PUBLISHED["DeepSeek-V2-Lite"]).attention
    assert attention.cheapest(1, 1).name == "absorbed"
    assert attention.cheapest(1, 4095).name == "absorbed"
    assert attention.cheapest(512, 0).name == "expanded"
    assert attention.cheapest(512, 3584).name == "expanded"


def test_attention_scale_of_v2_lite_includes_yarn_twice():
    """transformers' and DeepSeek's code: ``192 ** -0.5 * (0.1 * 0.707 * ln 40 + 1) ** 2``."""
    spec = spec_from_config(PUBLISHED["DeepSeek-V2-Lite"])
    assert spec.attention.scale(spec.rope) == pytest.approx(192**-0.5 * 1.2608037774058553**2)
    plain = replace(spec, rope=replace(spec.rope, scaling=None))
    assert spec.attention.scale(plain.rope) == pytest.approx(192**-0.5)
