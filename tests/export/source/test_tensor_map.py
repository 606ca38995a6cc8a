"""The source tensors of every canonical tensor, for every supported architecture."""

import pytest
from deepseek_v3 import deepseek_v3
from tiny_checkpoint import CONFIGS, shapes

from sprat.export.source.tensor_map import gguf_map, tensor_map
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.tensors import expected_tensors

CASES = {name: (CONFIGS[name], shapes(CONFIGS[name])) for name in CONFIGS} | {"deepseek v3": deepseek_v3()}


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_of_a_checkpoint_is_used_and_no_other_is_expected(case):
    config, names = CASES[case]
    expected = {}
    for origin in tensor_map(spec_from_config(config)).values():
        expected |= dict.fromkeys(origin.sources, origin.source_shape)
    assert expected == names


@pytest.mark.parametrize("case", CASES)
def test_canonical_tensors_are_those_that_the_runtime_expects(case):
    spec = spec_from_config(CASES[case][0])
    stored = {name: origin.shape for name, origin in tensor_map(spec).items()}
    computed = {"rope_freqs.weight"} if case == "llama" else set()
    assert stored == {name: shape for name, shape in expected_tensors(spec).items() if name not in computed}


def test_experts_are_stacked_in_order():
    origin = tensor_map(spec_from_config(CONFIGS["deepseek2"]))["blk.2.ffn_down_exps.weight"]
    assert origin.shape == (8, 64, 32)
    assert origin.sources == tuple(f"model.layers.2.mlp.experts.{expert}.down_proj.weight" for expert in range(8))
    assert origin.source_shape == (64, 32)


def test_both_halves_of_kv_b_come_from_one_tensor():
    origins = tensor_map(spec_from_config(CONFIGS["deepseek2"]))
    assert origins["blk.0.attn_k_b.weight"].sources == origins["blk.0.attn_v_b.weight"].sources
    assert origins["blk.0.attn_k_b.weight"].source_shape == (4 * (32 + 32), 64)


def test_the_tensors_of_a_gguf_keep_their_names():
    spec = spec_from_config(CONFIGS["deepseek2"])
    assert {name: origin.sources for name, origin in gguf_map(spec, {}).items()} == {
        name: (name,) for name in expected_tensors(spec)
    }
