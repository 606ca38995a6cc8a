"""Split models: any part opens the whole, and parts that do not make one model are an error."""

import shutil

import gguf
import numpy as np
import pytest
from split_gguf import Key, rewrite, split
from tiny_checkpoint import write_checkpoint

from sprat.errors import ModelFileError
from sprat.export.gguf.quantize import quantize
from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile

U16, I32 = [gguf.GGUFValueType.UINT16], [gguf.GGUFValueType.INT32]


def changed(part, **keys):
    """Rewrite one part with other split keys, ``no=`` or ``count=``."""
    changes: dict[str, Key | None] = {f"split.{key}": (U16, value) for key, value in keys.items()}
    target = part.with_suffix(".new")
    rewrite(part, target, {"general.architecture": ([gguf.GGUFValueType.STRING], "qwen2")} | changes)
    target.rename(part)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return export(write_checkpoint(folder / "source", "qwen2"), folder / "out", quant="int8").bundle.artifact()


@pytest.fixture
def parts(whole, tmp_path):
    return split(whole, tmp_path / "parts", max_tensors=20)


@pytest.mark.parametrize("empty_first", [False, True])
def test_any_part_opens_the_whole_model(whole, tmp_path, empty_first):
    parts = split(whole, tmp_path / "parts", max_tensors=20, empty_first=empty_first)
    assert len(parts) == 3 + empty_first
    with GGUFFile.open(whole) as expected:
        for part in parts:
            with GGUFFile.open(part) as file:
                assert file.path == parts[0]
                assert file.nbytes == sum(path.stat().st_size for path in parts)
                assert file.tensors.keys() == expected.tensors.keys()
                assert file.metadata.keys() == expected.metadata.keys()
                for name in expected.names():
                    np.testing.assert_array_equal(file.weight(name).packed, expected.weight(name).packed)


def test_a_split_model_runs_as_the_whole_one_does(whole, parts):
    with Engine.load(whole) as one, Engine.load(parts[1]) as many:
        assert (
            one.generate("The quick", max_tokens=8, temperature=0).text()
            == many.generate("The quick", max_tokens=8, temperature=0).text()
        )


def test_a_split_model_is_exported_and_quantized_as_the_whole_one_is(whole, parts, tmp_path):
    exported = export(parts[2], tmp_path / "out", quant="int4")
    assert exported.bundle.manifest.name == "model"
    quantize(parts[2], tmp_path / "split.gguf", quant="int4")
    quantize(whole, tmp_path / "whole.gguf", quant="int4")
    assert (tmp_path / "split.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    checkpoint, expected = Checkpoint.open(parts[1]), Checkpoint.open(whole)
    for name in expected.names():
        np.testing.assert_array_equal(checkpoint.weight(name).packed, expected.weight(name).packed)


@pytest.mark.parametrize("count", [0, 1])
def test_a_merged_file_is_a_whole_one(whole, tmp_path, count):
    keys: dict[str, Key | None] = {
        "split.no": (U16, 0),
        "split.count": (U16, count),
        "split.tensors.count": (I32, 50),
    }
    merged = rewrite(whole, tmp_path / "merged.gguf", keys)
    with Engine.load(merged) as engine:
        assert engine.generate("hello", max_tokens=2).text() is not None
    quantize(merged, tmp_path / "out.gguf")
    assert not [key for key in gguf.GGUFReader(tmp_path / "out.gguf").fields if key.startswith("split.")]


def test_links_to_parts_are_followed(parts, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, part in enumerate(parts):
        part.rename(tmp_path / f"blob{number}")
        (snapshot / part.name).symlink_to(tmp_path / f"blob{number}")
    (tmp_path / "another-name.gguf").symlink_to(snapshot / parts[1].name)
    with GGUFFile.open(snapshot / parts[1].name) as file:
        assert file.path == snapshot / parts[0].name
    (snapshot / parts[2].name).unlink()
    (snapshot / parts[2].name).symlink_to(tmp_path / "gone")
    with pytest.raises(ModelFileError, match=r"1 of the 3 parts.*model-00003-of-00003.gguf"):
        GGUFFile.open(snapshot / parts[0].name)
    with pytest.raises(ModelFileError, match=r"links to .*gone, which does not exist; complete the download"):
        GGUFFile.open(snapshot / parts[2].name)


def test_a_link_with_another_name_leads_to_the_parts(parts, tmp_path):
    (tmp_path / "best.gguf").symlink_to(parts[1])
    with GGUFFile.open(tmp_path / "best.gguf") as file:
        assert len(file.parts) == 3


def test_missing_parts_are_named(parts):
    parts[0].unlink()
    parts[2].unlink()
    with pytest.raises(ModelFileError, match=r"2 of the 3 parts .* model-00001-of-00003.gguf; model-00003-of-00003"):
        GGUFFile.open(parts[1])


def test_a_part_with_another_name_is_an_error(parts, tmp_path):
    renamed = parts[1].rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelFileError, match=r"expected the name NAME-00002-of-00003.gguf.*; rename the parts"):
        GGUFFile.open(renamed)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"no": 0}, "split.no is 0 in model-00002-of-00003.gguf, expected 1"),
        ({"count": 4}, "split.count is 4 in model-00002-of-00003.gguf, expected 3"),
        ({"count": 0}, "split.count is 0 in model-00002-of-00003.gguf, expected 3"),
        ({"tensors.count": 7}, "split.tensors.count is 7 in model-00002-of-00003.gguf, expected 50"),
    ],
)
def test_wrong_split_keys_are_an_error(parts, keys, message):
    changed(parts[1], **keys)
    with pytest.raises(ModelFileError, match=message):
        GGUFFile.open(parts[0])


def test_parts_of_different_models_are_an_error(whole, parts, tmp_path):
    other = split(whole, tmp_path / "other", max_tensors=17)
    assert len(other) == 3
    shutil.copy(other[1], parts[1])
    with pytest.raises(ModelFileError, match=r"do not make one model: tensor .* is in model-00001.*model-00002"):
        GGUFFile.open(parts[0])
    changed(parts[1])
    kind = [gguf.GGUFValueType.STRING]
    rewrite(parts[1], tmp_path / "named", {"general.architecture": (kind, "qwen2"), "general.name": (kind, "other")})
    (tmp_path / "named").rename(parts[1])
    with pytest.raises(ModelFileError, match=r"general.name is .* in model-00001.* and 'other' in model-00002"):
        GGUFFile.open(parts[0])


def test_a_damaged_part_is_named(parts):
    parts[1].write_bytes(parts[1].read_bytes()[:-400])
    with pytest.raises(ModelFileError, match=r"model-00002-of-00003.gguf: .* extend past the file"):
        GGUFFile.open(parts[0])
