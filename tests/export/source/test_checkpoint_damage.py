"""A source that cannot be exported is an error before anything is written; one message lists all problems."""

import contextlib
import json
import random

import gguf as reference
import numpy as np
import pytest
from deepseek_v3 import fp8_checkpoint
from gguf_bytes import gguf
from safetensors_files import save
from tiny_checkpoint import CONFIGS, weights

from sprat.errors import CheckpointError, ConfigError, ModelFileError
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.fp8 import F8_E4M3
from sprat.export.source.scan import magnitude_bound
from sprat.quant.formats import get_format

SHARD = "model.safetensors"
INDEX = "model.safetensors.index.json"
Q = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path):
    """A complete checkpoint to damage."""
    write_config(tmp_path)
    save(tmp_path / SHARD, weights(CONFIGS["qwen2"]))
    return tmp_path


def write_config(folder, **changes):
    config = CONFIGS["qwen2"] | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value != "-"}))


def change_weights(folder, **changes):
    """Rewrite the weights; a change of ``None`` removes a tensor."""
    tensors = weights(CONFIGS["qwen2"]) | changes
    save(folder / SHARD, {name: array for name, array in tensors.items() if array is not None})


def reason(path, error=CheckpointError):
    """The message of the error when ``path`` is opened and verified."""
    with pytest.raises(error) as caught:
        Checkpoint.open(path).verify_complete()
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_no_such_path(tmp_path):
    assert "no such file or directory; sprat downloads nothing" in reason(tmp_path / "deepseek-ai")


def test_not_a_model_directory(tmp_path):
    assert "contains no config.json" in reason(tmp_path)


def test_weights_without_their_folder(folder):
    assert "pass the folder" in reason(folder / SHARD)


def test_a_file_that_is_not_a_gguf(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x80\x04" + bytes(100))
    assert "this is not a GGUF file" in reason(path, ModelFileError)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"a": NaN', "\xff", "[" * 100_000])
def test_a_config_that_is_not_a_json_object(text, folder):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json: not a JSON object" in reason(folder, ConfigError)


def test_a_config_that_is_too_large(folder):
    (folder / "config.json").write_text(" " * (17 << 20))
    assert "larger than 16,777,216 bytes" in reason(folder, CheckpointError)


@pytest.mark.parametrize("architectures", ["-", [], ["GPT2LMHeadModel"], "LlamaForCausalLM", [7]])
def test_a_config_without_a_supported_architecture(architectures, folder):
    write_config(folder, architectures=architectures)
    assert "architecture" in reason(folder, ConfigError)


def test_an_architecture_that_needs_remote_code(folder):
    write_config(folder, architectures=["OtherForCausalLM"], auto_map={"AutoModel": "modeling_other.Other"})
    assert "sprat refuses remote code" in reason(folder, ConfigError)


def test_remote_code_of_a_supported_architecture_is_not_run(folder):
    write_config(folder, auto_map={"AutoModelForCausalLM": "modeling_qwen2.Qwen2ForCausalLM"})
    (folder / "modeling_qwen2.py").write_text("raise SystemExit('this must never run')")
    Checkpoint.open(folder).verify_complete()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_with_the_reason(name, folder):
    (folder / SHARD).rename(folder / name)
    message = reason(folder)
    assert f"its weights are pickled ({name}); pickle can run code" in message
    assert "safetensors" in message


def test_a_folder_without_weights(folder):
    (folder / SHARD).unlink()
    assert "contains no *.safetensors" in reason(folder)


@pytest.mark.parametrize("length", [0, 4, 8, 100, -1])
def test_a_truncated_safetensors_file(length, folder):
    raw = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(raw[:length])
    assert f"{SHARD}: not a complete safetensors file" in reason(folder)


@pytest.mark.parametrize(
    "raw",
    [
        (1 << 60).to_bytes(8, "little") + bytes(64),
        (200 << 20).to_bytes(8, "little") + bytes(64),
        (2).to_bytes(8, "little") + b"[]",
        (64).to_bytes(8, "little") + b"\xff" * 64,
    ],
)
def test_a_malformed_safetensors_header(raw, folder):
    (folder / SHARD).write_bytes(raw)
    assert f"{SHARD}: not a complete safetensors file" in reason(folder)


@pytest.mark.parametrize("offsets", [[0, 1 << 62], [8, 4], [4, 8], [0, 4]])
def test_wrong_offsets_in_a_safetensors_header(offsets, folder):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
    (folder / SHARD).write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert f"{SHARD}: not a complete safetensors file" in reason(folder)


def test_a_randomly_damaged_header_raises_only_checkpoint_errors(folder):
    whole = (folder / SHARD).read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    rng = random.Random(1)
    for _ in range(150):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(end)] = rng.choice([0, 34, 44, 48, 57, 91, 93, 123, 125, 255])
        (folder / SHARD).write_bytes(raw)
        with contextlib.suppress(CheckpointError):
            Checkpoint.open(folder).verify_complete()


def test_an_unsupported_tensor_type(folder):
    tensors = weights(CONFIGS["qwen2"])
    save(folder / SHARD, tensors | {NORM: np.zeros(64, np.int64)}, dict.fromkeys(tensors, "F32") | {NORM: "I64"})
    assert f"tensors of type I64 ('{NORM}'); sprat reads F32, F16, BF16, F8_E4M3" in reason(folder)


def test_missing_unexpected_and_wrongly_sized_tensors_are_reported_together(folder):
    extra = {"model.layers.0.self_attn.sinks": np.ones(4, np.float32)}
    change_weights(folder, **{Q: None, NORM: np.ones(63, np.float32)}, **extra)
    message = reason(folder)
    assert f"1 missing: '{Q}'" in message
    assert "1 unexpected: 'model.layers.0.self_attn.sinks'" in message
    assert f"1 with size mismatch: '{NORM}' is (63,), expected (64,)" in message


def test_nan_and_infinite_weights_are_reported_with_other_problems(folder):
    tensors = weights(CONFIGS["qwen2"])
    tensors[NORM][3] = np.nan
    tensors[Q][5, 7] = -np.inf
    change_weights(folder, **tensors | {"model.layers.1.mlp.up_proj.weight": None})
    message = reason(folder)
    assert f"2 with NaN or infinite weights: '{Q}'; '{NORM}'" in message
    assert "1 missing: 'model.layers.1.mlp.up_proj.weight'" in message


def test_a_long_list_is_truncated_and_counted(folder):
    save(folder / SHARD, {NORM: np.ones(64, np.float32)})
    message = reason(folder)
    assert "49 missing: " in message
    assert "and 45 more" in message
    assert len(message) < 2000


def test_infinite_scales_of_fp8_weights(tmp_path):
    config, stored, kinds = fp8_checkpoint()
    stored["model.layers.1.self_attn.o_proj.weight_scale_inv"][0, 0] = np.inf
    (tmp_path / "config.json").write_text(json.dumps(config))
    save(tmp_path / SHARD, stored, kinds)
    assert "1 with NaN or infinite weights: 'model.layers.1.self_attn.o_proj.weight_scale_inv'" in reason(tmp_path)


@pytest.mark.parametrize(
    ("name", "bits", "finite"),
    [
        ("F32", np.array([0x7F7FFFFF, 0xFF7FFFFF, 0], np.uint32), True),
        ("F32", np.array([0, 0x7F800000], np.uint32), False),
        ("F32", np.array([0xFFC00000], np.uint32), False),
        ("F16", np.array([0x7BFF, 0xFBFF], np.uint16), True),
        ("F16", np.array([0xFC00], np.uint16), False),
        ("F16", np.array([0x7C01], np.uint16), False),
        ("BF16", np.array([0x7F7F, 0xFF7F], np.uint16), True),
        ("BF16", np.array([0x7F80], np.uint16), False),
        ("BF16", np.array([0xFFC0], np.uint16), False),
        ("F8_E4M3", np.array([0x7E, 0xFE], np.uint8), True),
        ("F8_E4M3", np.array([0x7F], np.uint8), False),
        ("F8_E4M3", np.array([0xFF], np.uint8), False),
        ("Q8_0", np.frombuffer(b"\xff\x7b" + bytes(32), np.uint8), True),
        ("Q8_0", np.frombuffer(b"\x00\x7c" + bytes([1] * 32), np.uint8), False),
        ("F32", np.array([], np.uint32), True),
    ],
)
def test_the_largest_value_is_finite_and_the_next_code_is_not(name, bits, finite):
    format = F8_E4M3 if name == "F8_E4M3" else get_format(name)
    assert np.isfinite(magnitude_bound(bits.view(np.uint8), format)) == finite


def test_bfloat16_values_are_finite_where_numpy_says_so():
    codes = np.arange(1 << 16, dtype=np.uint16)
    values = (codes.astype(np.uint32) << 16).view(np.float32)
    for code, value in zip(codes[::37], values[::37], strict=True):
        assert magnitude_bound(np.array([code]).view(np.uint8), get_format("BF16")) == (
            abs(value) if np.isfinite(value) else np.inf
        )


def write_index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x\0.safetensors", "pytorch_model.bin"]
)
def test_an_index_that_names_a_file_outside_the_folder(name, folder):
    (folder / SHARD).unlink()
    write_index(folder, {Q: name})
    assert "expected names of .safetensors files in the same folder" in reason(folder)


def test_a_missing_shard(folder):
    write_index(folder, {Q: "model-00001-of-00002.safetensors", NORM: "model.safetensors"})
    assert "1 of 2 shards are missing: 'model-00001-of-00002.safetensors'; complete the download" in reason(folder)


def test_a_shard_without_a_tensor_that_the_index_lists(folder):
    write_index(folder, dict.fromkeys([*weights(CONFIGS["qwen2"]), "model.other"], SHARD))
    assert f"'model.other' is not in {SHARD}" in reason(folder)


def test_a_tensor_in_two_shards(folder):
    save(folder / "other.safetensors", {Q: np.ones((64, 64), np.float32)})
    (folder / SHARD).rename(folder / "model-1.safetensors")
    assert f"'{Q}' is in model-1.safetensors and in other.safetensors" in reason(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "\xff"])
def test_a_malformed_index(text, folder):
    (folder / INDEX).write_text(text, encoding="latin-1")
    assert f"{INDEX}: not an index of shards" in reason(folder)


def test_a_gguf_whose_vocabulary_has_another_size(tmp_path):
    writer = reference.GGUFWriter(tmp_path / "model.gguf", "llama")
    for key in ("block_count", "context_length", "feed_forward_length", "attention.head_count"):
        writer.add_uint32(f"llama.{key}", 1)
    writer.add_uint32("llama.embedding_length", 2)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_tensor("token_embd.weight", np.full((3, 2), np.nan, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    message = reason(tmp_path / "model.gguf")
    assert "10 missing: 'blk.0.attn_norm.weight'" in message
    assert "tokenizer.ggml.tokens has 2 entries, expected 3" in message
    assert "1 with NaN or infinite weights: 'token_embd.weight'" in message


def test_a_gguf_without_tensors(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    with pytest.raises(ConfigError, match=r"general\.architecture"):
        Checkpoint.open(path)
