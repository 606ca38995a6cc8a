"""Which files of a folder are a checkpoint's shards: by the index, by their numbers, and what may lie beside them."""

import json
import shutil

import numpy as np
import pytest
from safetensors_files import save
from tiny_checkpoint import CONFIGS, weights

from sprat.errors import CheckpointError
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.shards import find_shards

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM = "model.norm.weight"


def write_shards(folder, *, stem="model", n_shards=2, digits=5, has_index=False):
    """The weights of a small model as ``n_shards`` files; returns their names."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS["qwen2"]))
    names = [f"{stem}-{number + 1:05}-of-{n_shards:0{digits}}.safetensors" for number in range(n_shards)]
    weight_map = {name: names[index % n_shards] for index, name in enumerate(weights(CONFIGS["qwen2"]))}
    for shard in names:
        tensors = weights(CONFIGS["qwen2"]).items()
        save(folder / shard, {name: array for name, array in tensors if weight_map[name] == shard})
    if has_index:
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return names


def shard_names(folder):
    return [file.path.name for file in find_shards(folder)]


def add_adapter(folder):
    save(folder / "adapter_model.safetensors", {"base_model.model.x.lora_A.weight": np.ones((2, 2), np.float32)})


def add_consolidated(folder):
    save(folder / "consolidated.safetensors", weights(CONFIGS["qwen2"]))


def add_optimizer(folder):
    save(folder / "optimizer.safetensors", {"step": np.ones(2, np.float32)})


def add_macos_attributes(folder):
    (folder / "._model-00001-of-00002.safetensors").write_bytes(b"\0\5\x16\7" + bytes(60))


def add_other_precision(folder):
    write_shards(folder, stem="model.fp16")


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize(
    "add", [add_adapter, add_consolidated, add_optimizer, add_macos_attributes, add_other_precision]
)
def test_what_lies_beside_the_shards_is_not_read(add, has_index, tmp_path):
    names = write_shards(tmp_path, has_index=has_index)
    add(tmp_path)
    assert shard_names(tmp_path) == names
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.verify_complete()
    assert checkpoint.warnings == []


@pytest.mark.parametrize(("stem", "digits"), [("model", 6), ("pytorch_model", 5), ("model.fp16", 5)])
def test_numbered_files_without_an_index_are_a_checkpoint(stem, digits, tmp_path):
    """DeepSeek counts to six digits."""
    names = write_shards(tmp_path, stem=stem, digits=digits, n_shards=3)
    assert shard_names(tmp_path) == names


@pytest.mark.parametrize("has_index", [True, False])
def test_a_missing_shard_is_named_with_and_without_an_index(has_index, tmp_path):
    names = write_shards(tmp_path, n_shards=3, has_index=has_index)
    (tmp_path / names[1]).unlink()
    with pytest.raises(CheckpointError, match=f"1 of 3 shards are missing: '{names[1]}'; complete the download"):
        find_shards(tmp_path)


def test_files_without_numbers_are_all_read(tmp_path):
    names = write_shards(tmp_path)
    shutil.move(tmp_path / names[0], tmp_path / "a.safetensors")
    shutil.move(tmp_path / names[1], tmp_path / "b.safetensors")
    Checkpoint.open(tmp_path).verify_complete()


def test_one_file_counts_beside_the_shards_of_an_index_as_in_transformers(tmp_path):
    """transformers 5.24 looks for model.safetensors before the index, and reads that."""
    write_shards(tmp_path, has_index=True)
    save(tmp_path / SINGLE, weights(CONFIGS["qwen2"]) | {NORM: np.full(64, 3, np.float32)})
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.verify_complete()
    np.testing.assert_array_equal(checkpoint.weight("output_norm.weight").dequantize().ravel(), 3)
    assert checkpoint.warnings == [
        f"{SINGLE} is read, as transformers does, and not the 2 files that {INDEX} lists: remove {SINGLE} if they are "
        "the model"
    ]


def test_an_index_that_lists_the_one_file_counts(tmp_path):
    write_shards(tmp_path)
    save(tmp_path / SINGLE, weights(CONFIGS["qwen2"]))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys([*weights(CONFIGS["qwen2"]), "x"], SINGLE)}))
    with pytest.raises(CheckpointError, match=f"'x' is not in {SINGLE}, where {INDEX} lists it"):
        Checkpoint.open(tmp_path)


@pytest.mark.slow
def test_transformers_reads_the_one_file(tmp_path):
    transformers = pytest.importorskip("transformers")
    write_shards(tmp_path, has_index=True)
    save(tmp_path / SINGLE, weights(CONFIGS["qwen2"]) | {NORM: np.full(64, 3, np.float32)})
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (model.model.norm.weight == 3).all()
