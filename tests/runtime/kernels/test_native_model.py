"""Whole models over the native kernels against the same models over the reference."""

from __future__ import annotations

import numpy as np
import pytest
from memory_weights import MemoryWeights
from native_kernels import BLOCK_FORMATS, every_isa, kernels_of, needs_native, rounded
from published_configs import PUBLISHED

from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.kernels.native import NativeKernels
from sprat.runtime.models import Model

pytestmark = needs_native
SMALL = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "vocab_size": 200,
}
LATENT = {
    "kv_lora_rank": 64,
    "moe_intermediate_size": 64,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}
SPECS = {
    "deepseek2": spec_from_config(PUBLISHED["DeepSeek-V3"] | SMALL | LATENT),
    "llama": spec_from_config(PUBLISHED["DeepSeek-R1-Distill-Llama-8B"] | SMALL | {"num_key_value_heads": 2}),
    "qwen2": spec_from_config(PUBLISHED["DeepSeek-R1-Distill-Qwen-1.5B"] | SMALL | {"num_key_value_heads": 2}),
}
every_spec = pytest.mark.parametrize("family", SPECS)


def mean_kld(base, other):
    """Mean Kullback-Leibler divergence of next-token distributions, in nats."""
    log_p, log_q = (x - np.logaddexp.reduce(x.astype(np.float64), axis=-1, keepdims=True) for x in (base, other))
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean())


def all_logits(model, tokens, steps=None, storage="f32"):
    """Logits after every token, in chunks of the given lengths."""
    cache, parts, at = model.new_cache(len(tokens), storage), [], 0
    for step in steps or [len(tokens)]:
        parts.append(model.forward(tokens[at : at + step], cache, all_logits=True))
        at += step
    return np.concatenate(parts)


@every_isa
@every_spec
@pytest.mark.parametrize("format_name", ["F32", "Q8_0"])
def test_logits_are_those_of_the_reference(isa, family, format_name):
    weights = MemoryWeights.random(SPECS[family], format_name)
    native, reference = (Model(SPECS[family], weights, k) for k in (kernels_of(isa), ReferenceKernels()))
    tokens = np.random.default_rng(0).integers(0, 200, 40)
    divergence = mean_kld(all_logits(reference, tokens), all_logits(native, tokens))
    assert divergence < (1e-9 if format_name == "F32" else 5e-3)  # random weights: rounding errors are not damped


@every_isa
@every_spec
def test_a_prompt_in_chunks_gives_the_logits_of_one_pass(isa, family):
    model = Model(SPECS[family], MemoryWeights.random(SPECS[family]), kernels_of(isa))
    tokens = np.random.default_rng(1).integers(0, 200, 40)
    whole = all_logits(model, tokens)
    for steps in ([1] * 40, [33, 7], [5, 1, 30, 4]):
        np.testing.assert_allclose(all_logits(model, tokens, steps), whole, atol=2e-4)


@every_spec
def test_logits_do_not_depend_on_the_number_of_threads(family):
    weights = MemoryWeights.random(SPECS[family], "Q4_0")
    tokens = np.random.default_rng(2).integers(0, 200, 20)
    one, three = (all_logits(Model(SPECS[family], weights, kernels_of("", n)), tokens) for n in (1, 3))
    np.testing.assert_allclose(three, one, atol=1e-5)


@every_isa
@every_spec
@pytest.mark.parametrize("format_name", ["Q8_0", "Q4_0"])
def test_exact_kernels_are_as_exact_as_float32(isa, family, format_name):
    weights = MemoryWeights.random(SPECS[family], format_name)
    exact = Model(SPECS[family], weights, NativeKernels(2, isa, exact=True))
    reference = Model(SPECS[family], weights, ReferenceKernels())
    tokens = np.random.default_rng(0).integers(0, 200, 40)
    for steps in (None, [1] * 40):
        assert mean_kld(all_logits(reference, tokens), all_logits(exact, tokens, steps)) < 1e-7


class RoundedReference(ReferenceKernels):
    """The reference with the rounding of native products: activations in int8 where weights are in blocks."""

    def _product(self, x, weight, expert=None):
        return super()._product(rounded(x) if weight.format.name in BLOCK_FORMATS else x, weight, expert)


@pytest.mark.slow
@every_isa
def test_a_real_model_diverges_by_the_rounding_of_int8_activations(isa, smollm2_gguf):
    with GGUFFile.open(smollm2_gguf) as file:
        spec = spec_from_metadata(file.metadata, file)
        tokens = np.random.default_rng(3).integers(0, 10_000, 24)
        exact, also_rounded, native = (
            all_logits(Model(spec, file, kernels), tokens)
            for kernels in (ReferenceKernels(), RoundedReference(), kernels_of(isa))
        )
        in_two_digits = all_logits(Model(spec, file, NativeKernels(2, isa, exact=True)), tokens)
    # One value that rounds differently changes all later roundings: only the size of the divergence is compared.
    assert mean_kld(exact, native) < 1.5 * mean_kld(exact, also_rounded) < 1.5e-2
    assert mean_kld(exact, in_two_digits) < 1e-6
