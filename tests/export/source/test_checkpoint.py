"""Opening a source: every kind of checkpoint, and the weights read from it."""

import hashlib
import json
import os
import tracemalloc

import gguf as reference
import numpy as np
import pytest
from deepseek_v3 import fp8_checkpoint
from safetensors_files import bf16, save
from tiny_checkpoint import CONFIGS, weights, write_checkpoint

from sprat.errors import CheckpointError, ExportError
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.file import SourceFile
from sprat.export.source.fp8 import F8_E4M3
from sprat.runtime.arch.tensors import expected_tensors

KV_B = "model.layers.1.self_attn.kv_b_proj.weight"


def write(folder, architecture="deepseek2", kind="F32", tensors=None, **changes):
    """A checkpoint without a tokenizer; ``kind`` is the type of all weights."""
    config = CONFIGS[architecture] | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = weights(config) if tensors is None else tensors
    stored = {"F32": np.asarray, "BF16": bf16, "F16": lambda array: array.astype(np.float16)}[kind]
    save(folder / "model.safetensors", {name: stored(array) for name, array in tensors.items()}, kind)
    return folder


def split(folder, n_shards=3):
    """The same checkpoint as ``n_shards`` files with an index."""
    tensors = weights(json.loads((folder / "config.json").read_text()))
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for shard in range(n_shards):
        name = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        part = {key: value for index, (key, value) in enumerate(tensors.items()) if index % n_shards == shard}
        save(folder / name, part)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("kind", ["F32", "BF16", "F16"])
def test_every_architecture_and_type_is_complete(architecture, kind, tmp_path):
    checkpoint = Checkpoint.open(write(tmp_path, architecture, kind))
    checkpoint.verify_complete()
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == expected_tensors(checkpoint.spec)
    assert {tensor.format.name for name, tensor in checkpoint.tensors.items() if name != "rope_freqs.weight"} == {kind}
    assert checkpoint.warnings == []
    for name in checkpoint.names():
        weight = checkpoint.weight(name)
        assert weight.dequantize().shape == weight.shape == checkpoint.tensors[name].shape


@pytest.mark.parametrize("kind", ["F32", "BF16", "F16"])
def test_weights_are_mapped_to_their_canonical_tensors(kind, tmp_path):
    """The mapping of an MoE model with latent attention, written out in NumPy."""
    checkpoint = Checkpoint.open(write(tmp_path, kind=kind))
    exact = {"F32": lambda w: w, "F16": lambda w: w.astype(np.float16).astype(np.float32)}
    exact["BF16"] = lambda w: (bf16(w).astype(np.uint32) << 16).view(np.float32)
    theirs = {name: exact[kind](weight) for name, weight in weights(checkpoint.config).items()}
    kv_b = theirs[KV_B].reshape(4, 32 + 32, 64)
    expected = {
        "token_embd.weight": theirs["model.embed_tokens.weight"],
        "output_norm.weight": theirs["model.norm.weight"],
        "blk.1.attn_k_b.weight": kv_b[:, :32].transpose(0, 2, 1),
        "blk.1.attn_v_b.weight": kv_b[:, 32:],
        "blk.1.attn_q.weight": theirs["model.layers.1.self_attn.q_proj.weight"],
        "blk.1.ffn_gate_inp.weight": theirs["model.layers.1.mlp.gate.weight"],
        "blk.1.ffn_down_exps.weight": np.stack(
            [theirs[f"model.layers.1.mlp.experts.{expert}.down_proj.weight"] for expert in range(8)]
        ),
        "blk.0.ffn_down.weight": theirs["model.layers.0.mlp.down_proj.weight"],
    }
    for name, weight in expected.items():
        np.testing.assert_array_equal(checkpoint.weight(name).dequantize(), weight, err_msg=name)


def test_chunks_of_any_size_concatenate_to_the_tensor(tmp_path):
    checkpoint = Checkpoint.open(write(tmp_path))
    for tensor in checkpoint.tensors.values():
        whole = tensor.weight().packed.ravel()
        for chunk_bytes in (1, 1000, 1 << 20):
            chunks = list(tensor.chunks(chunk_bytes))
            np.testing.assert_array_equal(np.concatenate(chunks).ravel(), whole)
            assert all(len(chunk) == 1 or chunk.nbytes <= chunk_bytes for chunk in chunks)


def test_reading_a_stack_in_chunks_keeps_one_chunk_in_memory(tmp_path):
    config = {"n_routed_experts": 32, "moe_intermediate_size": 256, "num_hidden_layers": 2}
    tensor = Checkpoint.open(write(tmp_path, **config)).tensors["blk.1.ffn_up_exps.weight"]
    tracemalloc.start()
    try:
        total = sum(chunk.nbytes for chunk in tensor.chunks(64 << 10))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 32 * 256 * 64 * 4
    assert peak < 4 * (64 << 10)


def test_an_expert_is_read_without_the_others(tmp_path):
    checkpoint = Checkpoint.open(write(tmp_path))
    stack = checkpoint.weight("blk.1.ffn_up_exps.weight")
    expert = stack[3]
    assert (stack.shape, expert.shape, expert.name) == ((8, 32, 64), (32, 64), "blk.1.ffn_up_exps.weight[3]")
    theirs = weights(checkpoint.config)["model.layers.1.mlp.experts.3.up_proj.weight"]
    np.testing.assert_array_equal(expert.dequantize(), theirs)
    np.testing.assert_array_equal(stack.packed[3], expert.packed)
    assert not np.shares_memory(expert.packed, stack[3].packed)  # its caller frees it, unlike a view of the map


def test_llama3_rope_factors_become_a_tensor(tmp_path):
    checkpoint = Checkpoint.open(write(tmp_path, "llama"))
    assert checkpoint.weight("rope_freqs.weight").dequantize().tolist() == list(checkpoint.spec.rope.scaling.factors)


def test_shards_give_the_same_weights_as_one_file(tmp_path):
    single, sharded = Checkpoint.open(write(tmp_path / "a")), Checkpoint.open(split(write(tmp_path / "b")))
    sharded.verify_complete()
    assert len(sharded.files) == 4
    for name in single.names():
        np.testing.assert_array_equal(single.weight(name).packed, sharded.weight(name).packed)


def test_symlinks_of_the_hugging_face_cache_are_followed(tmp_path):
    original = split(write(tmp_path / "download"))
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(original.iterdir())):
        file.rename(blobs / f"{number:064}")
        (snapshot / file.name).symlink_to(os.path.relpath(blobs / f"{number:064}", snapshot))
    Checkpoint.open(snapshot).verify_complete()


def test_fp8_weights_are_scaled_and_others_unchanged(tmp_path):
    config, stored, kinds = fp8_checkpoint()
    (tmp_path / "config.json").write_text(json.dumps(config))
    save(tmp_path / "model.safetensors", stored, kinds)
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.verify_complete()
    kv_b = F8_E4M3.dequantize(stored[KV_B]) * np.repeat(stored[KV_B + "_scale_inv"], 128, axis=0)[:256]
    k_b = kv_b.reshape(4, 32 + 32, 64)[:, :32].transpose(0, 2, 1)
    np.testing.assert_array_equal(checkpoint.weight("blk.1.attn_k_b.weight").dequantize(), k_b)
    assert checkpoint.tensors["blk.1.ffn_up_exps.weight"].format.name == "F32"
    assert checkpoint.tensors["token_embd.weight"].format.name == "BF16"


@pytest.mark.parametrize("change", ["missing", "with size mismatch"])
def test_fp8_scales_are_checked(change, tmp_path):
    config, stored, kinds = fp8_checkpoint()
    name = KV_B + "_scale_inv"
    stored[name] = np.ones((3, 3), np.float32)
    if change == "missing":
        del stored[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    save(tmp_path / "model.safetensors", stored, kinds)
    with pytest.raises(CheckpointError, match=f"1 {change}: '{name}'"):
        Checkpoint.open(tmp_path).verify_complete()


def test_a_gguf_is_a_checkpoint(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", reference.GGMLQuantizationType.Q8_0)
    checkpoint = Checkpoint.open(path)
    checkpoint.verify_complete()
    assert checkpoint.tensors["blk.0.ffn_up.weight"].format.name == "Q8_0"
    assert checkpoint.warnings == ["the source is quantized (14 tensors in Q8_0): quantizing again adds to its error"]
    assert checkpoint.hash() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.metadata["general.architecture"] == "llama"
    assert checkpoint.tokenizer_files() == {}


def test_a_gguf_in_a_read_only_format_is_a_checkpoint(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", reference.GGMLQuantizationType.Q8_0, read_only=True)
    checkpoint = Checkpoint.open(path)
    checkpoint.verify_complete()
    assert checkpoint.tensors["output.weight"].format.name == "IQ4_XS"
    assert checkpoint.weight("output.weight").dequantize().shape == (32, 256)


def write_gguf(path, kind, *, read_only=False):
    """A llama model of two layers and 256 columns, written by the gguf package."""
    rng = np.random.default_rng(0)
    writer = reference.GGUFWriter(path, "llama")
    dimensions = {"block_count": 2, "context_length": 64, "embedding_length": 256, "feed_forward_length": 256}
    dimensions |= {"attention.head_count": 4, "attention.head_count_kv": 4, "rope.dimension_count": 64}
    for key, value in dimensions.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    for layer in range(2):
        for name in square:
            weight = rng.standard_normal((256, 256)).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight", reference.quantize(weight, kind), raw_dtype=kind)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(256, np.float32))
    writer.add_tensor("token_embd.weight", rng.standard_normal((32, 256)).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(256, np.float32))
    if read_only:
        blocks = rng.integers(0, 60, (32, 136), np.uint8)
        writer.add_tensor("output.weight", blocks, raw_dtype=reference.GGMLQuantizationType.IQ4_XS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_hash_of_a_folder_is_that_of_the_output_of_sha256sum(tmp_path):
    checkpoint = Checkpoint.open(split(write(tmp_path)))
    names = sorted(["config.json", *(path.name for path in tmp_path.glob("*.safetensors"))])
    lines = [f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    assert checkpoint.hash() == hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("change", ["rewritten", "truncated", "deleted"])
def test_a_changed_source_is_an_error(change, tmp_path):
    checkpoint = Checkpoint.open(write(tmp_path))
    path = tmp_path / "model.safetensors"
    if change == "rewritten":
        os.utime(path, ns=(1, 1))
    elif change == "truncated":
        os.truncate(path, 4096)
    else:
        path.unlink()
    for read in (checkpoint.check_unchanged, checkpoint.verify_complete, lambda: checkpoint.weight("output.weight")):
        with pytest.raises(ExportError, match=r"model\.safetensors: (the source changed|cannot be read any more)"):
            read()


def test_tokenizer_files_are_found(tmp_path):
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "model"))
    assert set(checkpoint.tokenizer_files()) == {"tokenizer.json", "tokenizer_config.json"}
    assert all(checkpoint.tokenizer_files().values())


def test_an_unknown_weight_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match="no tensor 'nothing'"):
        Checkpoint.open(write(tmp_path)).weight("nothing")


def rewrite(path, *, keep_time):
    """Another content of the same size, in place."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-3] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_rewritten_with_its_size_and_time_is_an_error(name, tmp_path):
    folder = write_checkpoint(tmp_path / "source", "qwen2")
    checkpoint = Checkpoint.open(folder)
    checkpoint.verify_complete()
    rewrite(folder / name, keep_time=True)
    with pytest.raises(ExportError, match=rf"{name}: the source changed while it was read \(same size"):
        checkpoint.check_unchanged()


def test_tokenizer_files_are_compared_by_their_hash(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "source", "qwen2")
    checkpoint = Checkpoint.open(folder)
    rewrite(folder / "tokenizer.json", keep_time=False)
    monkeypatch.setattr(SourceFile, "_compare", lambda *_: None)  # a file system whose times cannot be trusted
    with pytest.raises(ExportError, match=r"tokenizer\.json: the source changed while it was read"):
        checkpoint.tokenizer_files()
