"""Model files that are truncated, overwritten or replaced while they are in use.

Without the native core's handler each of the truncations kills the process.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from native_kernels import needs_native
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.errors import ModelFileChangedError, ModelFileError
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.integrity.finite_check import check_finite
from sprat.runtime.files.mapped_file import GuardedMap
from sprat.runtime.open_model import open_model

PROMPT = "The quick brown fox"
every_backend = pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "reference"])
needs_handler = needs_native


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two GGUFs of one size, one longer, and a checkpoint."""
    folder = tmp_path_factory.mktemp("sources")
    checkpoint = write_checkpoint(folder / "tiny", "llama")
    other = write_checkpoint(folder / "other", "llama", seed=1)
    moe = write_checkpoint(folder / "moe")
    first, second, longer = (
        export(source, folder / f"out-{source.name}", quant=quant).bundle.artifact()
        for source, quant in ((checkpoint, "int8"), (other, "int8"), (moe, "f16"))
    )
    assert first.stat().st_size == second.stat().st_size < longer.stat().st_size
    return {"model": first, "twin": second, "longer": longer, "checkpoint": checkpoint}


@pytest.fixture
def model(sources, tmp_path):
    return shutil.copy(sources["model"], tmp_path / "model.gguf")


def answer(engine, **options):
    return engine.generate(PROMPT, max_tokens=6, temperature=0, **options).text()


def answer_for_ever(engine):
    while True:
        answer(engine)


def truncate(path, sources):
    os.truncate(path, 8192)


def empty(path, sources):
    os.truncate(path, 0)


def copy_over(path, sources, other):
    """As ``cp`` does: the same inode."""
    with sources[other].open("rb") as source, path.open("r+b") as target:
        target.truncate(0)
        shutil.copyfileobj(source, target)


def shrink(path, sources):
    with path.open("r+b") as target:
        target.truncate(0)
        target.write(b"GGUF, but no more")


def rewrite(path, sources):
    """The same size, without truncation in between."""
    with path.open("r+b") as target:
        target.write(sources["twin"].read_bytes())


def rewrite_with_its_time(path, sources):
    """As ``rsync --inplace --times`` may, or any copy where all files have one time."""
    before = path.stat()
    rewrite(path, sources)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "truncated": truncate,
    "emptied": empty,
    "replaced by a short file": shrink,
    "replaced by a twin": lambda path, sources: copy_over(path, sources, "twin"),
    "replaced by a longer file": lambda path, sources: copy_over(path, sources, "longer"),
    "rewritten": rewrite,
    "rewritten with its time": rewrite_with_its_time,
}


@needs_handler
@every_backend
@pytest.mark.parametrize("change", CHANGES)
def test_the_next_answer_is_an_error_and_other_engines_go_on(sources, model, backend, change):
    with Engine.load(model, backend=backend) as engine, Engine.load(sources["longer"], backend=backend) as other:
        expected = answer(other)
        answer(engine)
        CHANGES[change](model, sources)
        for _ in range(2):  # and it stays one
            with pytest.raises(ModelFileChangedError, match=r"model\.gguf: the file changed while it was in use"):
                answer(engine)
        assert answer(other) == expected
    with Engine.load(sources["model"], backend=backend) as again:
        assert answer(again)


@needs_handler
@every_backend
@pytest.mark.parametrize("change", CHANGES)
def test_an_answer_that_is_being_generated_ends_with_the_error(sources, model, backend, change):
    with Engine.load(model, backend=backend) as engine, engine.session() as session:
        pieces = session.generate(PROMPT, max_tokens=50, temperature=0)
        next(pieces)
        CHANGES[change](model, sources)
        with pytest.raises(ModelFileChangedError):
            list(pieces)


@needs_handler
@every_backend
def test_a_file_that_is_truncated_in_the_middle_of_a_pass_is_an_error(sources, tmp_path, backend):
    for delay in (0.0, 0.001, 0.003, 0.01, 0.02):
        path = shutil.copy(sources["longer"], tmp_path / f"{backend}-{delay}.gguf")
        with Engine.load(path, backend=backend) as engine:

            def cut(path=path, delay=delay):
                time.sleep(delay)
                os.truncate(path, 4096)

            cutter = threading.Thread(target=cut)
            cutter.start()
            with pytest.raises(ModelFileChangedError):
                answer_for_ever(engine)
            cutter.join()


@needs_handler
def test_several_threads_and_engines_meet_one_lost_file(sources, tmp_path):
    paths = [shutil.copy(sources["model"], tmp_path / f"{index}.gguf") for index in range(4)]
    engines = [Engine.load(path, backend="native") for path in paths]
    expected, found = answer(engines[0]), {}

    def generate(index):
        try:
            while True:
                found[index] = answer(engines[index])
                assert found[index] == expected
                if index == 3 and stop.is_set():
                    return
        except ModelFileChangedError:
            found[index] = "changed"

    stop = threading.Event()
    threads = [threading.Thread(target=generate, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for path in paths[:3]:
        os.truncate(path, 4096)
    for thread in threads[:3]:
        thread.join()
    stop.set()
    threads[3].join()
    assert found == {0: "changed", 1: "changed", 2: "changed", 3: expected}


@every_backend
def test_a_file_that_is_replaced_by_renaming_keeps_answering(sources, model, backend):
    with Engine.load(model, backend=backend) as engine:
        expected = answer(engine)
        Path(shutil.copy(sources["twin"], f"{model}.new")).replace(model)
        assert answer(engine) == expected
        model.unlink()
        assert answer(engine) == expected


def test_a_file_that_only_moves_keeps_answering(model):
    with Engine.load(model) as engine:
        expected = answer(engine)
        model.rename(f"{model}.moved")
        assert answer(engine) == expected


def link_and_unlink(path):
    os.link(path, f"{path}.link")
    Path(f"{path}.link").unlink()


HARMLESS = {
    "another link": lambda path: os.link(path, f"{path}.link"),
    "a link gone": link_and_unlink,
    "other permissions": lambda path: path.chmod(0o440),
    "read meanwhile": lambda path: os.utime(path, ns=(1, path.stat().st_mtime_ns)),
    "renamed and back": lambda path: path.rename(f"{path}.x").rename(path),
}


@every_backend
@pytest.mark.parametrize("happen", HARMLESS.values(), ids=HARMLESS)
def test_a_file_of_which_only_the_change_time_is_new_keeps_answering(model, backend, happen):
    with Engine.load(model, backend=backend) as engine:
        expected, before = answer(engine), model.stat().st_ctime_ns
        happen(model)
        assert model.stat().st_ctime_ns != before
        assert answer(engine) == expected


def test_a_changed_file_that_cannot_be_compared_is_an_error(model, monkeypatch):
    mapped = GuardedMap.open(model)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("sprat.runtime.files.mapped_file.open_input", refuse)
    model.chmod(0)
    with pytest.raises(ModelFileChangedError, match="cannot be compared: Permission denied"):
        mapped.watch.check_unchanged()


@needs_handler
@pytest.mark.parametrize("every", [False, True])
def test_a_file_that_is_truncated_before_its_blocks_are_checked_is_an_error(model, every):
    file = GGUFFile.open(model)
    os.truncate(model, 8192)
    with pytest.raises(ModelFileChangedError):
        check_finite(file, every=every)


@needs_handler
def test_a_file_that_is_truncated_while_it_is_opened_is_an_error(model, monkeypatch):
    original = GuardedMap.open

    def open_and_truncate(path):
        mapped = original(path)
        os.truncate(path, 0)
        return mapped

    monkeypatch.setattr(GuardedMap, "open", open_and_truncate)
    with pytest.raises(ModelFileError, match="changed while it was in use"):
        open_model(model)


@needs_handler
def test_a_checkpoint_that_is_truncated_while_it_runs_is_an_error(sources, tmp_path):
    folder = shutil.copytree(sources["checkpoint"], tmp_path / "checkpoint")
    with sprat.load(folder) as engine:
        assert answer(engine)
        os.truncate(folder / "model.safetensors", 4096)
        with pytest.raises(sprat.SpratError, match=r"model\.safetensors"):
            answer(engine)


@needs_handler
def test_a_lost_page_reads_as_zeros_and_is_remembered(model):
    mapped, other = GuardedMap.open(model), GuardedMap.open(model)
    content = np.frombuffer(mapped, np.uint8)
    assert content[:4].tobytes() == b"GGUF"
    mapped.watch.check_unchanged()
    os.truncate(model, 4096)
    assert content[:4].tobytes() == b"GGUF"  # the first page is still there
    assert not content[4096:].any()
    with pytest.raises(ModelFileChangedError, match="cannot be read"):
        mapped.watch.check_unchanged()
    with pytest.raises(ModelFileChangedError, match="4096 now"):
        other.watch.check_unchanged()


@pytest.fixture(scope="module")
def onnx_bundles(tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("onnx")
    checkpoint = write_checkpoint(folder / "tiny")
    return {
        quant: export(checkpoint, folder / quant, quant=quant, formats=["onnx"]).bundle for quant in ("int8", "f32")
    }


@needs_handler
@pytest.mark.parametrize("quant", ["int8", "f32"])
@pytest.mark.parametrize("size", [0, 4096, None, "same time"])
def test_changed_onnx_data_is_an_error(onnx_bundles, tmp_path, quant, size):
    """onnxruntime maps the data file by itself."""
    folder = shutil.copytree(onnx_bundles[quant].path, tmp_path / "bundle")
    data = next(folder.glob("*.data"))
    with Engine.load(folder) as engine:
        assert answer(engine)
        if size is None:
            data.write_bytes(data.read_bytes()[::-1])
        elif size == "same time":
            before = data.stat()
            data.write_bytes(data.read_bytes()[::-1])
            os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            os.truncate(data, size)
        with pytest.raises(ModelFileChangedError, match=data.name):
            answer(engine)
    with Engine.load(onnx_bundles[quant].path) as again:
        assert answer(again)
