"""Names under the prefixes that wrappers leave."""

import json

import pytest
from safetensors_files import save
from tiny_checkpoint import CONFIGS, weights, write_checkpoint

import sprat
from sprat.errors import CheckpointError
from sprat.export.inspection import inspect
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.recognize.plain_names import plain_name
from sprat.runtime.arch.tensors import expected_tensors

WRAPPERS = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "torch.compile of each layer": lambda name: name.replace(".mlp.", ".mlp._orig_mod."),
    "DataParallel": lambda name: f"module.{name}",
    "DataParallel of a compiled model": lambda name: f"module._orig_mod.{name}",
    "PEFT": lambda name: f"base_model.model.{name}",
    "LLaVA": lambda name: f"language_model.{name}",
    "transformers 5, multimodal": lambda name: name.replace("model.", "model.language_model.", 1),
    "FSDP": lambda name: "_fsdp_wrapped_module." + name.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
    "activation checkpointing": lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."),
    "an attribute model": lambda name: f"model.{name}",
    "DeepSpeed": lambda name: f"module.base_model.model.{name}",
}


def write(folder, architecture, rename):
    (folder / "config.json").write_text(json.dumps(CONFIGS[architecture]))
    save(folder / "model.safetensors", {rename(name): array for name, array in weights(CONFIGS[architecture]).items()})
    return folder


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_prefixes_of_wrappers_are_read(wrapper, architecture, tmp_path):
    checkpoint = Checkpoint.open(write(tmp_path, architecture, WRAPPERS[wrapper]))
    checkpoint.verify_complete()
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == expected_tensors(checkpoint.spec)
    assert checkpoint.warnings == []


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_plain_name_stays(architecture):
    for name in weights(CONFIGS[architecture]):
        assert plain_name(name) == name


def test_two_tensors_of_one_plain_name_are_an_error(tmp_path):
    write(tmp_path, "qwen2", str)
    tensors = weights(CONFIGS["qwen2"])
    save(tmp_path / "model.safetensors", tensors | {"module.model.norm.weight": tensors["model.norm.weight"]})
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' and 'module\.model\.norm\.weight' are both"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("read", [Checkpoint.open, inspect, sprat.plan])
def test_foreign_names_are_shown_with_what_was_expected(read, tmp_path):
    write(tmp_path, "qwen2", lambda name: f"transformer.{name.removeprefix('model.')}")
    with pytest.raises(CheckpointError) as error:
        read(tmp_path)
    assert "no tensor has a name of a qwen2 model; found 'transformer.embed_tokens.weight'; " in str(error.value)
    assert "expected 'model.embed_tokens.weight'; 'model.layers.0.input_layernorm.weight'" in str(error.value)


def test_a_plan_needs_no_weights_and_not_all_of_them(tmp_path):
    write(tmp_path, "deepseek2", str)
    whole = sprat.plan(tmp_path, devices=["rpi5-8gb"])[0].footprint
    tensors = weights(CONFIGS["deepseek2"])
    save(tmp_path / "model.safetensors", {name: tensors[name] for name in list(tensors)[:3]})
    assert sprat.plan(tmp_path, devices=["rpi5-8gb"])[0].footprint == whole
    (tmp_path / "model.safetensors").unlink()
    assert sprat.plan(tmp_path, devices=["rpi5-8gb"])[0].footprint == whole


def test_a_checkpoint_of_another_width_is_refused_before_it_runs(tmp_path):
    folder = write_checkpoint(tmp_path / "model", "llama")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 128}))
    with pytest.raises(CheckpointError, match=r"12 with size mismatch: .*; and 8 more\. Complete or repair"):
        sprat.load(folder)


def test_inspect_says_which_tensors_an_export_misses(tmp_path):
    write(tmp_path, "qwen2", lambda name: name.replace("layers.3", "layers.7"))
    (runtime,) = inspect(tmp_path).runtimes
    assert not runtime.loads
    assert "missing: 'model.layers.3." in runtime.why
