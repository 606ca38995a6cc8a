"""The child process that tries a provider, in this process and with the CPU as the provider."""

import msgspec
import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from sprat.export.pipeline import export
from sprat.runtime.backends.providers import child, names
from sprat.runtime.backends.providers.child import main
from sprat.runtime.backends.providers.computed import Computed
from sprat.runtime.backends.providers.library import onnxruntime
from sprat.runtime.backends.providers.names import CPU
from sprat.runtime.backends.providers.placement import read_placements
from sprat.runtime.backends.providers.settings import ProviderSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("child")
    source = write_checkpoint(folder / "tiny", "qwen2")
    return export(source, folder / "out", quant="f32", formats=["onnx"]).bundle.artifact("onnx")


@pytest.fixture
def compute(model, monkeypatch, capfd):
    """Runs the child with the CPU under the name ``here``; a result and a log."""
    monkeypatch.setitem(names._PROVIDERS, "here", names._Provider(CPU, "", "cpu", ""))

    monkeypatch.setattr(ProviderSettings, "session_providers", lambda _: [CPU])

    def run(name="here"):
        main(str(model), msgspec.json.encode(ProviderSettings(name)).decode())
        out, log = capfd.readouterr()
        return msgspec.json.decode(out, type=Computed), log

    return run


def test_the_cpu_as_provider_is_right_and_logs_its_nodes(compute):
    found, log = compute()
    assert not found.problem
    assert found.prompt_error < 1e-5
    assert found.decode_error < 1e-5
    [(provider, n_nodes)] = read_placements(log.splitlines())[0].items()
    assert provider == CPU
    assert n_nodes > 20


def test_a_provider_that_is_not_there_computes_nothing(compute):
    found, _ = compute("cuda")
    assert CPU in found.available
    assert (found.prompt_error, found.problem) == (None, "")


def test_logits_that_are_nan_are_a_problem(compute, monkeypatch):
    monkeypatch.setattr(child, "_logits", lambda *_: np.array([[1.0, np.nan]]))
    assert compute()[0].problem == "its logits are NaN or Inf"


def test_a_session_that_fails_is_a_problem(compute, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no device")

    monkeypatch.setattr(onnxruntime(), "InferenceSession", fail)
    assert "no device" in compute()[0].problem
