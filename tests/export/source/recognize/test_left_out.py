"""What an export leaves out of a checkpoint, and that it equals what replaces it."""

import json

import numpy as np
import pytest
from deepseek_v3 import fp8_checkpoint
from safetensors_files import bf16, save
from tiny_checkpoint import CONFIGS, weights, write_checkpoint

from sprat.errors import CheckpointError
from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.recognize.left_out import mtp_names
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.rope import rope_frequencies

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
V3_LAYER = [
    "model.layers.61.eh_proj.weight",
    "model.layers.61.shared_head.head.weight",
    "model.layers.61.mlp.experts.0.up_proj.weight",
    "model.layers.61.self_attn.o_proj.weight_scale_inv",
]


def write(folder, architecture="qwen2", tensors=None, kinds="F32", config=None, **extra):
    config = (CONFIGS[architecture] if config is None else config) | extra
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save(folder / "model.safetensors", weights(config) if tensors is None else tensors, kinds)
    return folder


def tied(**others):
    found = weights(CONFIGS["qwen2"])
    return found | {name: change(found[EMBEDDINGS]) for name, change in others.items()}


def test_an_equal_head_is_left_out_in_silence(tmp_path):
    checkpoint = Checkpoint.open(write(tmp_path, tensors=tied(**{HEAD: np.copy})))
    checkpoint.verify_complete()
    assert checkpoint.spec.tied_embeddings
    assert "output.weight" not in checkpoint
    assert checkpoint.warnings == []


def test_a_head_of_equal_values_in_another_type_is_left_out(tmp_path):
    rounded = (bf16(weights(CONFIGS["qwen2"])[EMBEDDINGS]).astype(np.uint32) << 16).view(np.float32)
    tensors = tied() | {EMBEDDINGS: rounded, HEAD: bf16(rounded)}
    checkpoint = Checkpoint.open(write(tmp_path, tensors=tensors, kinds=dict.fromkeys(tensors, "F32") | {HEAD: "BF16"}))
    assert checkpoint.spec.tied_embeddings


def minus_zero(array):
    found = array.copy()
    found[found == 0] = -0.0
    return found


def test_plus_and_minus_zero_are_the_same_value(tmp_path):
    tensors = tied()
    tensors[EMBEDDINGS][3, :7] = 0
    checkpoint = Checkpoint.open(write(tmp_path, tensors=tensors | {HEAD: minus_zero(tensors[EMBEDDINGS])}))
    assert checkpoint.spec.tied_embeddings


def last_changed(array):
    found = array.copy()
    found[-1, -1] += 1
    return found


@pytest.mark.parametrize("change", [last_changed, lambda array: array * 2, lambda array: array[::-1]])
def test_another_head_is_kept_and_said(change, tmp_path):
    tensors = tied(**{HEAD: change})
    checkpoint = Checkpoint.open(write(tmp_path, tensors=tensors))
    checkpoint.verify_complete()
    assert not checkpoint.spec.tied_embeddings
    np.testing.assert_array_equal(checkpoint.weight("output.weight").dequantize(), tensors[HEAD])
    assert any("lm_head.weight differs from model.embed_tokens.weight" in text for text in checkpoint.warnings)


def test_another_head_is_in_every_artifact(tmp_path):
    source = write_checkpoint(tmp_path / "source", "qwen2")
    save(source / "model.safetensors", tied(**{HEAD: last_changed}))
    result = export(source, tmp_path / "out", quant="f32", formats=("gguf", "onnx"))
    assert result.bundle.manifest.spec["tied_embeddings"] is False
    assert any("both are kept" in warning for warning in result.bundle.manifest.warnings)


def test_a_head_alone_stands_for_the_embeddings(tmp_path):
    tensors = tied(**{HEAD: np.copy})
    expected = tensors.pop(EMBEDDINGS)
    checkpoint = Checkpoint.open(write(tmp_path, tensors=tensors))
    checkpoint.verify_complete()
    np.testing.assert_array_equal(checkpoint.weight("token_embd.weight").dequantize(), expected)
    assert any("stands for the missing" in text for text in checkpoint.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["equal", "other", "head alone"])
def test_the_logits_are_those_of_transformers(case, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tensors = tied(**{HEAD: np.copy if case != "other" else lambda array: array[::-1]})
    if case == "head alone":
        del tensors[EMBEDDINGS]
    write(tmp_path, tensors=tensors)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32").eval()
    with torch.no_grad():
        expected = model(torch.arange(20)[None]).logits[0, -1].numpy()
    from sprat.export.verify.source_model import open_source

    found = np.asarray(open_source(tmp_path, dense_bytes=1 << 26).new_stream(64).forward(list(range(20)))).reshape(-1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("declared", [{"num_nextn_predict_layers": 1}, {"num_nextn_predict_layers": 0}, {}])
def test_mtp_layers_are_left_out_whether_or_not_they_are_declared(declared):
    assert mtp_names([*V3_LAYER, "model.layers.60.mlp.gate.weight"], 61, declared) == set(V3_LAYER)


def test_a_declared_layer_needs_no_mark_and_an_undeclared_one_does():
    names = ["model.layers.4.self_attn.o_proj.weight", "model.layers.5.self_attn.o_proj.weight"]
    assert mtp_names(names, 4, {}) == set()
    assert mtp_names(names, 4, {"num_nextn_predict_layers": "1"}) == set()
    assert mtp_names(names, 4, {"num_nextn_predict_layers": 1}) == set(names[:1])
    assert mtp_names(names, 4, {"num_nextn_predict_layers": 1 << 60}) == set(names)


@pytest.mark.parametrize(
    "name",
    [
        "mtp.layers.0.fc.weight",
        "model.mtp.norm.weight",
        "model.mtp_layers.0.eh_proj.weight",
        "model.mtp_block.0.mlp.up_proj.weight",
    ],
)
def test_other_names_of_mtp_weights(name):
    """Qwen3-Next, MiMo, HY, ERNIE: what transformers lists in ``_keys_to_ignore_on_load_unexpected``."""
    assert mtp_names([name, "model.layers.0.mlp.up_proj.weight"], 1, {}) == {name}


@pytest.mark.parametrize("declared", [1, 0, None])
def test_the_manifest_says_that_mtp_is_left_out(declared, tmp_path):
    config, stored, kinds = fp8_checkpoint()
    source = write(tmp_path / "source", config=config, tensors=stored, kinds=kinds, num_nextn_predict_layers=declared)
    checkpoint = Checkpoint.open(source)
    checkpoint.verify_complete()
    (note,) = checkpoint.warnings
    assert note.startswith("3 tensors of multi-token prediction are left out (model.layers.4")
    assert ("which config.json does not declare" in note) == (not declared)


def test_a_layer_beyond_the_last_is_unexpected_without_a_mark(tmp_path):
    tensors = tied(**{"model.layers.4.mlp.up_proj.weight": np.copy})
    with pytest.raises(CheckpointError, match=r"1 unexpected: 'model\.layers\.4\.mlp\.up_proj\.weight'"):
        Checkpoint.open(write(tmp_path, tensors=tensors)).verify_complete()


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq", "model.rotary_emb.original_inv_freq"],
)
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_saved_frequencies_are_compared_with_the_config(name, architecture, tmp_path):
    frequencies = rope_frequencies(spec_from_config(CONFIGS[architecture]).rope).astype(np.float32)
    same = Checkpoint.open(write(tmp_path / "a", architecture, weights(CONFIGS[architecture]) | {name: frequencies}))
    same.verify_complete()
    assert same.warnings == []
    tensors = weights(CONFIGS[architecture]) | {name: bf16(frequencies)}
    rounded = write(tmp_path / "b", architecture, tensors, dict.fromkeys(tensors, "F32") | {name: "BF16"})
    assert Checkpoint.open(rounded).warnings == []
    other = write(tmp_path / "c", architecture, weights(CONFIGS[architecture]) | {name: frequencies * 1.1})
    (warning,) = Checkpoint.open(other).warnings
    assert name in warning
    assert "those of config.json, which are used" in warning


def test_scales_of_activations_are_left_out_of_fp8_checkpoints_only(tmp_path):
    config, stored, kinds = fp8_checkpoint()
    name = "model.layers.1.self_attn.o_proj.activation_scale"
    stored[name], kinds[name] = np.ones(1, np.float32), "F32"
    fp8 = {"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}
    Checkpoint.open(write(tmp_path / "a", config=config | fp8, tensors=stored, kinds=kinds)).verify_complete()
    with pytest.raises(CheckpointError, match="1 unexpected"):
        Checkpoint.open(write(tmp_path / "b", config=config, tensors=stored, kinds=kinds)).verify_complete()
