"""Folders, files and tensors that are no checkpoint: each is named as what it is, with a remedy."""

import json

import numpy as np
import pytest
from safetensors_files import save
from tiny_checkpoint import CONFIGS, weights, write_checkpoint

from sprat.errors import CheckpointError, InputError
from sprat.export.inspection import inspect
from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 12345\n"


def reason(path, read=Checkpoint.open):
    with pytest.raises(InputError) as error:
        read(path)
    return str(error.value)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja"]
)
@pytest.mark.parametrize("read", [Checkpoint.open, inspect])
def test_a_pointer_of_git_lfs_in_a_folder(name, read, tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    (folder / name).write_text(POINTER)
    message = reason(folder, read)
    assert f"{name}: a Git-LFS pointer" in message
    assert "git lfs pull" in message


def test_several_pointers_are_one_message(tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    for number in range(1, 6):
        (folder / f"model-0000{number}-of-00005.safetensors").write_text(POINTER)
    assert "model-00001-of-00005.safetensors; " in reason(folder)
    assert "and 2 more: a Git-LFS pointer" in reason(folder)


def test_a_gguf_that_is_a_pointer(tmp_path):
    (tmp_path / "model.gguf").write_text(POINTER)
    assert "model.gguf: a Git-LFS pointer" in reason(tmp_path / "model.gguf")


def test_a_large_file_that_begins_like_a_pointer_is_none(tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    (folder / "notes.txt").write_text(POINTER + "x" * 2000)
    Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "a PEFT adapter without its base model"),
        (["adapter_model.safetensors"], "a PEFT adapter without its base model"),
        (["manifest.json"], "a bundle of sprat"),
        (["model_index.json"], "a pipeline of diffusers"),
        (["modules.json"], "a model of sentence-transformers"),
        (["params.json", "consolidated.00.pth"], "its author's own layout"),
        (["tf_model.h5"], "a TensorFlow checkpoint"),
        (["flax_model.msgpack"], "a Flax checkpoint"),
        (["zero_to_fp32.py"], "DeepSpeed"),
        (["__0_0.distcp"], "a sharded checkpoint of PyTorch"),
        (["model.onnx"], "an ONNX model"),
        (["model.safetensors.incomplete"], "an unfinished download"),
        (["config.json", ".cache/huggingface/download/x=.incomplete"], "an unfinished download"),  # with --local-dir
    ],
)
def test_folders_of_other_kinds(names, named, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}" if name != "config.json" else json.dumps(CONFIGS["qwen2"]).encode())
    assert named in reason(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "README.md"])
def test_a_snapshot_without_weights_says_what_downloads_them(name, tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / name).write_text(json.dumps(CONFIGS["qwen2"]))
    assert reason(snapshot).endswith("has only a part of org/name; complete it: hf download org/name")


def test_the_root_of_a_model_in_the_cache_names_its_snapshots(tmp_path):
    root = tmp_path / "models--org--name"
    snapshot = write_checkpoint(root / "snapshots" / "abc123")
    (root / "refs").mkdir()
    message = reason(root)
    assert "the root of a model in the Hugging Face cache" in message
    assert str(snapshot) in message
    assert "the Hugging Face cache itself; pass a snapshot of one model: models--org--name" in reason(tmp_path)


def test_a_folder_of_checkpoints_names_them(tmp_path):
    for step in (500, 1000):
        write_checkpoint(tmp_path / f"checkpoint-{step}")
    message = reason(tmp_path)
    assert "its subfolders do; pass one of them" in message
    assert "checkpoint-500" in message


@pytest.mark.parametrize(
    ("extra", "kind", "named"),
    [
        ("mlp.up_proj.qweight", "I32", "quantized with GPTQ or AWQ"),
        ("mlp.up_proj.qzeros", "I32", "quantized with GPTQ or AWQ"),
        ("mlp.up_proj.weight.absmax", "U8", "quantized with bitsandbytes"),
        ("mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "U8", "quantized with bitsandbytes"),
        ("mlp.up_proj.SCB", "F32", "quantized with bitsandbytes"),
        ("mlp.up_proj.weight_packed", "I32", "quantized with compressed-tensors"),
        ("mlp.up_proj.weight_scale", "F32", "compressed-tensors (llm-compressor) or NVIDIA ModelOpt"),
        ("mlp.up_proj.trellis", "I32", "quantized with ExLlama"),
        ("mlp.experts.gate_up_proj_blocks", "U8", "quantized with MXFP4"),
        ("mlp.up_proj.scales", "F32", "quantized with MLX"),
        ("mlp.up_proj.W_q", "U8", "quantized with HQQ"),
        ("mlp.up_proj.lora_A.default.weight", "F32", "a LoRA adapter that is not merged"),
        ("mlp.up_proj.base_layer.weight", "F32", "a model with an adapter that is not merged"),
    ],
)
def test_tensors_of_other_kinds(extra, kind, named, tmp_path):
    """Checkpoints whose config does not say it: the tensors do."""
    dtype = {"I32": np.int32, "U8": np.uint8, "F32": np.float32}[kind]
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["qwen2"]))
    name = f"model.layers.0.{extra}"
    tensors = weights(CONFIGS["qwen2"]) | {name: np.zeros((4, 4), dtype)}
    save(tmp_path / "model.safetensors", tensors, dict.fromkeys(tensors, "F32") | {name: kind})
    message = reason(tmp_path)
    assert named in message
    assert repr(name) in message


def test_a_config_with_a_byte_order_mark_is_read(tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    config = folder / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    Checkpoint.open(folder).verify_complete()


def test_an_ignored_field_is_recorded_and_known_to_verify(tmp_path):
    from sprat.export.verify.verify import verify

    source = write_checkpoint(tmp_path / "model", "qwen2", a_new_field=3)
    assert "--ignore-config-field a_new_field" in reason(source)
    result = export(source, tmp_path / "out", quant="f16", ignore_config_fields=["a_new_field"])
    manifest = result.bundle.manifest
    assert manifest.source.ignored_config_fields == ("a_new_field",)
    assert "fields of config.json that were ignored on request: a_new_field" in manifest.warnings
    assert verify(result.path, source, max_tokens=64, backends=["reference"]).passed


def test_options_of_folders_are_refused_for_files(tmp_path):
    bundle = export(write_checkpoint(tmp_path / "model", "qwen2"), tmp_path / "out").bundle
    with pytest.raises(CheckpointError, match="--ignore-config-field needs a checkpoint folder"):
        Checkpoint.open(bundle.artifact("gguf"), ignore_fields=["x"])


def test_a_manifest_without_adapters_and_ignored_fields_does_not_mention_them(tmp_path):
    export(write_checkpoint(tmp_path / "model", "qwen2"), tmp_path / "out")
    source = json.loads((tmp_path / "out" / "manifest.json").read_text())["source"]
    assert source.keys() == {"name", "format", "hash", "quantized"}
