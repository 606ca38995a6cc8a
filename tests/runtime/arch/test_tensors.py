"""Names and shapes of the tensors of each architecture."""

from __future__ import annotations

from dataclasses import replace

import gguf
import pytest
from published_configs import PUBLISHED

from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.tensors import expected_tensors

ARCHITECTURES = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}


def spec_of(name):
    return spec_from_config(PUBLISHED[f"DeepSeek-{name}"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_name_is_one_of_llamacpps(name):
    spec = spec_from_config(PUBLISHED[name])
    known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[ARCHITECTURES[spec.architecture]]}
    for tensor in expected_tensors(spec):
        stem = tensor.rpartition(".")[0]
        generic = ".".join("{bid}" if part.isdecimal() else part for part in stem.split("."))
        assert generic in known


def test_v2_lite_layers():
    tensors = expected_tensors(spec_of("V2-Lite"))
    assert tensors["blk.0.ffn_gate.weight"] == (10944, 2048)
    assert "blk.0.ffn_gate_inp.weight" not in tensors
    layer = {name.removeprefix("blk.1."): shape for name, shape in tensors.items() if name.startswith("blk.1.")}
    assert layer == {
        "attn_norm.weight": (2048,),
        "attn_q.weight": (16 * 192, 2048),
        "attn_kv_a_mqa.weight": (576, 2048),
        "attn_kv_a_norm.weight": (512,),
        "attn_k_b.weight": (16, 512, 128),
        "attn_v_b.weight": (16, 128, 512),
        "attn_output.weight": (2048, 2048),
        "ffn_norm.weight": (2048,),
        "ffn_gate_inp.weight": (64, 2048),
        "ffn_gate_exps.weight": (64, 1408, 2048),
        "ffn_up_exps.weight": (64, 1408, 2048),
        "ffn_down_exps.weight": (64, 2048, 1408),
        "ffn_gate_shexp.weight": (2816, 2048),
        "ffn_up_shexp.weight": (2816, 2048),
        "ffn_down_shexp.weight": (2048, 2816),
    }


def test_v3_has_q_lora_and_a_correction_bias():
    tensors = expected_tensors(spec_of("V3"))
    assert tensors["blk.60.attn_q_b.weight"] == (128 * 192, 1536)
    assert tensors["blk.60.exp_probs_b.bias"] == (256,)
    assert not any(name.startswith("blk.61.") for name in tensors)


def test_only_qwen_has_biases_and_only_llama_has_rope_factors():
    qwen, llama = expected_tensors(spec_of("R1-Distill-Qwen-7B")), expected_tensors(spec_of("R1-Distill-Llama-8B"))
    assert qwen["blk.27.attn_k.bias"] == (512,)
    assert "blk.27.attn_output.bias" not in qwen
    assert llama["rope_freqs.weight"] == (64,)
    assert not any(name.endswith(".bias") for name in llama)


def test_tied_embeddings_have_no_output():
    spec = spec_of("R1-Distill-Qwen-1.5B")
    assert "output.weight" in expected_tensors(spec)
    assert "output.weight" not in expected_tensors(replace(spec, tied_embeddings=True))
