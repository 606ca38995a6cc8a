"""A finished bundle is opened and run before an export says success; what cannot be run here is said."""

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import BackendError, ExportError
from sprat.export.pipeline import export
from sprat.export.verify import first_logits
from sprat.runtime.engine import Engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    return export(write_checkpoint(folder / "tiny"), folder / "out", quant="int8").bundle


def notes(bundle):
    return list(first_logits.check_first_logits(bundle.path))


def test_a_sound_bundle_gives_no_notes(bundle):
    assert notes(bundle) == []


def test_logits_that_are_not_finite_are_an_error(bundle, monkeypatch):
    monkeypatch.setattr(first_logits, "has_finite_logits", lambda _: False)
    with pytest.raises(ExportError, match=r"\.gguf: the written model computes NaN or Inf"):
        notes(bundle)


def test_a_file_that_cannot_be_opened_is_an_error(bundle, tmp_path):
    for file in bundle.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / bundle.artifact().name
    data = bytearray(path.read_bytes())
    data[:4] = b"LIES"
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"cannot be opened again .* nothing was published"):
        list(first_logits.check_first_logits(tmp_path))


def test_a_model_that_no_backend_runs_here_is_a_note(bundle, monkeypatch):
    def refuse(*_, **__):
        raise BackendError("no backend")

    monkeypatch.setattr(Engine, "load", refuse)
    assert notes(bundle) == [f"{bundle.artifact().name} was not run: no backend"]


def test_a_large_model_is_not_run_in_numpy(bundle, monkeypatch):
    monkeypatch.setattr(first_logits, "_MAX_REFERENCE_BYTES", 0)
    with Engine.load(bundle.path, backend="reference") as slow:
        monkeypatch.setattr(Engine, "load", lambda *_, **__: slow)
        assert notes(bundle) == [
            f"{bundle.artifact().name} was opened and not run: this machine has no fast backend for it"
        ]


def test_onnx_is_not_run_without_the_memory_for_it(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    out = export(write_checkpoint(tmp_path / "tiny"), tmp_path / "out", quant="int8", formats=["onnx"]).bundle
    monkeypatch.setattr(first_logits, "available_bytes", lambda: 0)
    assert notes(out) == ["model.onnx was not run: onnxruntime would need more memory than is free"]
