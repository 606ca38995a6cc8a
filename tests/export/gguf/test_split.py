"""Split output: sizes, names and keys by llama.cpp's convention, and the same weights."""

import gguf
import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import ExportError, InputError
from sprat.export.gguf.quantize import quantize
from sprat.export.pipeline import export
from sprat.files import file_sha256
from sprat.progress import Progress
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import Bundle
from sprat.runtime.files.gguf import GGUFFile

SIZE = 150_000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "source")


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    return export(source, tmp_path_factory.mktemp("whole") / "out", quant="f16", align=64).bundle.artifact()


def parts_of(folder):
    return sorted(folder.glob("*-of-*.gguf"))


def same_weights(one, other):
    with GGUFFile.open(one) as left, GGUFFile.open(other) as right:
        assert left.metadata.keys() == right.metadata.keys()
        assert list(left.tensors) == list(right.tensors)
        for name in left.names():
            np.testing.assert_array_equal(left.weight(name).packed, right.weight(name).packed)


def test_parts_have_llamacpps_names_and_keys(whole, tmp_path):
    result = quantize(whole, tmp_path / "model.gguf", quant="q8_0", split=SIZE)
    quantize(whole, tmp_path / "whole.gguf", quant="q8_0")
    parts = parts_of(tmp_path)
    assert [file.path for file in result.files] == parts
    assert [part.name for part in parts] == [f"model-{i + 1:05}-of-{len(parts):05}.gguf" for i in range(len(parts))]
    assert len(parts) > 2
    assert not list(tmp_path.glob("*.journal"))
    n_tensors = len(gguf.GGUFReader(whole).tensors)
    for number, part in enumerate(parts):
        assert part.stat().st_size <= SIZE
        reader = gguf.GGUFReader(part)
        fields = {key: (field.types, field.contents()) for key, field in reader.fields.items()}
        assert fields["split.no"] == ([gguf.GGUFValueType.UINT16], number)
        assert fields["split.count"] == ([gguf.GGUFValueType.UINT16], len(parts))
        assert fields["split.tensors.count"] == ([gguf.GGUFValueType.INT32], n_tensors)
        assert fields["general.alignment"][1] == 64
        assert ("general.architecture" in fields) == (number == 0)
    same_weights(parts[1], tmp_path / "whole.gguf")


def test_a_bundle_with_parts_runs_and_is_exported_again(source, whole, tmp_path):
    states: list[Progress] = []
    result = export(source, tmp_path / "out", quant="f16", align=64, split="150K", progress=states.append)
    artifact = result.bundle.artifact()
    parts = parts_of(artifact.parent)
    assert artifact == parts[0]
    listed = {file.name: file for file in result.bundle.manifest.files}
    for part in parts:
        assert (listed[part.name].size_bytes, listed[part.name].sha256) == (part.stat().st_size, file_sha256(part))
    same_weights(artifact, whole)
    writing = [state for state in states if state.what != "reading the source"]
    assert writing[-1].done == writing[-1].total == sum(part.stat().st_size for part in parts)
    assert [state.done for state in writing] == sorted(state.done for state in writing)
    with Engine.load(tmp_path / "out") as engine:
        assert engine.generate("hello", max_tokens=2).text() is not None
    again = export(source, tmp_path / "out", quant="f16", align=64, split="150K")
    assert again.notes == ("the bundle exists already and is up to date",)
    Bundle.open(tmp_path / "out").check()


def test_what_fits_into_one_file_is_not_split(whole, tmp_path):
    result = quantize(whole, tmp_path / "model.gguf", quant="q8_0", split="4G")
    assert [file.path.name for file in result.files] == ["model.gguf"]
    assert not [key for key in gguf.GGUFReader(tmp_path / "model.gguf").fields if key.startswith("split.")]


def test_a_split_source_becomes_whole_again(whole, tmp_path):
    quantize(whole, tmp_path / "parts.gguf", quant="f16", split=SIZE)
    quantize(parts_of(tmp_path)[1], tmp_path / "whole.gguf", quant="f16")
    same_weights(tmp_path / "whole.gguf", whole)


@pytest.mark.parametrize("stop_after", [1, 30, 50])
def test_an_interrupted_split_continues_with_the_same_bytes(whole, tmp_path, stop_after):
    class StopError(Exception):
        pass

    calls = 0

    def stop(state: Progress) -> None:
        nonlocal calls
        calls += state.what != "reading the source"
        if calls == stop_after:
            raise StopError

    (tmp_path / "once").mkdir()
    quantize(whole, tmp_path / "once" / "model.gguf", split=SIZE)
    with pytest.raises(StopError):
        quantize(whole, tmp_path / "model.gguf", split=SIZE, progress=stop)
    result = quantize(whole, tmp_path / "model.gguf", split=SIZE)
    assert sum(file.n_resumed for file in result.files) >= stop_after - 1
    for once, twice in zip(parts_of(tmp_path / "once"), parts_of(tmp_path), strict=True):
        assert once.read_bytes() == twice.read_bytes()
    assert not [*tmp_path.glob("*.journal"), *tmp_path.glob("*.partial")]


def test_existing_parts_are_not_replaced(whole, tmp_path):
    quantize(whole, tmp_path / "model.gguf", split=SIZE)
    with pytest.raises(ExportError, match=r"model-00001-of-0000\d.gguf: exists; choose another name"):
        quantize(whole, tmp_path / "model.gguf", split=SIZE)
    with pytest.raises(ExportError, match="is the source itself"):
        quantize(parts_of(tmp_path)[1], tmp_path / "model.gguf", split=SIZE, force=True)
    quantize(whole, tmp_path / "model.gguf", split=SIZE, force=True)


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (4000, ExportError, r"output.weight needs a file of .* bytes, and --split allows 4,000; allow larger files"),
        (30_000, ExportError, r"output.weight needs a file of .* bytes, and --split allows 30,000"),
        ("4X", InputError, "split: found '4X'"),
        (0, InputError, "split: found 0"),
    ],
)
def test_a_size_that_is_too_small_is_an_error(whole, tmp_path, size, error, message):
    with pytest.raises(error, match=message):
        quantize(whole, tmp_path / "model.gguf", split=size)
    assert not list(tmp_path.iterdir())
