"""The child process of ``sprat inspect --provider``, in this process and with the CPU as the provider."""

import msgspec
import pytest
from tiny_checkpoint import write_checkpoint

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from sprat.export.pipeline import export
from sprat.runtime.backends.onnx import session as onnx_session
from sprat.runtime.backends.providers.child import Computed, main
from sprat.runtime.backends.providers.names import CPU
from sprat.runtime.backends.providers.placement import read_placements


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("child")
    source = write_checkpoint(folder / "tiny", "qwen2")
    return export(source, folder / "out", quant="f32", formats=["onnx"]).bundle.artifact("onnx")


def test_the_cpu_as_provider_is_right_and_logs_its_nodes(model, capfd):
    main(str(model), CPU)
    out, log = capfd.readouterr()
    found = msgspec.json.decode(out, type=Computed)
    assert not found.problem
    assert found.prompt_error < 1e-5
    assert found.decode_error < 1e-5
    [(provider, n_nodes)] = read_placements(log.splitlines())[0].items()
    assert provider == CPU
    assert n_nodes > 20


def test_a_provider_that_is_not_there_computes_nothing(model, capfd):
    main(str(model), "NoExecutionProvider")
    found = msgspec.json.decode(capfd.readouterr().out, type=Computed)
    assert CPU in found.available
    assert (found.prompt_error, found.problem) == (None, "")


def test_a_session_that_fails_is_a_problem(model, monkeypatch, capfd):
    def fail(*_, **__):
        raise RuntimeError("no device")

    monkeypatch.setattr(onnx_session.onnxruntime(), "InferenceSession", fail)
    main(str(model), CPU)
    assert "no device" in msgspec.json.decode(capfd.readouterr().out, type=Computed).problem
