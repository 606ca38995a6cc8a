"""Bad weights show, always: NaN or infinity in any tensor reaches the logits, which Sampler refuses.

Every tensor of six models, in every format, in both kinds of kernels, with every storage of the cache. Huge weights
either give finite logits or show as well.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
from bad_weights import KINDS, BadWeights, can_hold
from golden_models import config_of
from memory_weights import MemoryWeights
from native_kernels import needs_native

from sprat.errors import BackendError
from sprat.quant.formats import format_names
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors
from sprat.runtime.generate.sampling import Sampler, SamplingParams
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.kernels.native import NATIVE_FORMATS, NativeKernels, instruction_sets
from sprat.runtime.models import Model

IS_WHOLE = os.environ.get("SPRAT_ATTACK") == "whole"
FAMILIES = ("deepseek-v2-lite", "deepseek-v3", "qwen3-moe", "r1-distill-qwen", "r1-0528-qwen3", "r1-distill-llama")
STORAGES = ("f32", "f16", "int8")
WIDE = {  # rows that every block format divides, and latents that the kernels multiply as bytes
    "hidden_size": 256,
    "intermediate_size": 256,
    "moe_intermediate_size": 256,
    "kv_lora_rank": 256,
    "q_lora_rank": 256,
    "qk_nope_head_dim": 256,
    "v_head_dim": 64,
    "head_dim": 64,
    "num_hidden_layers": 2,
}


@functools.cache
def spec_of(family, wide):
    config = config_of(family)
    return spec_from_config(config | {name: size for name, size in WIDE.items() if wide and config.get(name)})


def roles(spec):
    """One tensor of each role, of the last layer that has it. The factors of RoPE are checked when a file is opened."""
    found = {name.split(".", 2)[2] if name.startswith("blk.") else name: name for name in expected_tensors(spec)}
    return sorted(set(found.values()) - {ROPE_FREQS})


@functools.cache
def good_weights(spec, format_name):
    weights = MemoryWeights.random(spec, format_name)
    return {name: weights.weight(name) for name in weights.names()}


def logits_of(spec, format_name, bad, kind, kernels, storage):
    weights = BadWeights(good_weights(spec, format_name), bad, kind)
    model = Model(spec, weights, kernels)
    cache = model.new_cache(16, storage)
    model.forward(np.arange(1, 8), cache)
    return model.forward([9], cache).ravel()


def shows(logits):
    """Whether a sampler refuses these logits, at any temperature."""
    refusals = 0
    for temperature in (0.0, 0.8):
        try:
            Sampler(SamplingParams(temperature=temperature, seed=0)).sample(logits, [1])
        except BackendError:
            refusals += 1
    assert refusals in {0, 2}
    return refusals == 2


def hidden(spec, format_name, kind, kernels, storage):
    """Tensors whose bad weights do not show. The largest finite ones need not, if the logits are finite."""
    return [
        name
        for name in roles(spec)
        if can_hold(good_weights(spec, format_name)[name].format, kind)
        and not shows(logits_of(spec, format_name, name, kind, kernels, storage))
        and kind != "largest"
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_weights_show_in_the_reference(family, kind):
    assert hidden(spec_of(family, wide=False), "Q8_0", kind, ReferenceKernels(), "f32") == []


@needs_native
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_weights_show_in_native_kernels(family, kind):
    index = KINDS.index(kind) + FAMILIES.index(family)  # each kind meets each storage, format and instruction set
    storage, format_name = STORAGES[index % 3], ("Q4_0", "F16", "Q8_0", "Q4_1")[index % 4]
    kernels = NativeKernels(1, isa=instruction_sets()[index % len(instruction_sets())], exact=index % 5 == 0)
    assert hidden(spec_of(family, wide=False), format_name, kind, kernels, storage) == []


@pytest.mark.slow
@pytest.mark.parametrize("format_name", format_names())
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_weights_show_in_every_format_storage_and_instruction_set(family, format_name):
    spec = spec_of(family, wide=True)
    isas = instruction_sets() if format_name in NATIVE_FORMATS else []
    own = format_names().index(format_name) + FAMILIES.index(family)
    for turn, kind in enumerate(KINDS, own):  # in the short form each kind meets each set and storage in some file
        if IS_WHOLE or turn % len(KINDS) == 0:  # NumPy dequantizes all formats alike
            assert hidden(spec, format_name, kind, ReferenceKernels(), "f32") == []
        for index, isa in enumerate(isas, turn):
            if IS_WHOLE or index % len(isas) == 0:
                storage, kernels = STORAGES[index % 3], NativeKernels(2, isa=isa, exact=turn // len(isas) % 2 == 1)
                assert hidden(spec, format_name, kind, kernels, storage) == [], (kind, isa, storage)
