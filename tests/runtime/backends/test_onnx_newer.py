"""Beside an MoE model's graph for every onnxruntime is one for newer ones; the engine takes the faster that runs."""

import numpy as np
import onnx_models
import pytest
from tiny_checkpoint import write_checkpoint

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx_ir")

from sprat.errors import ModelFileError  # noqa: E402
from sprat.export.onnx.ort_version import FAST_QMOE  # noqa: E402
from sprat.export.source.checkpoint import Checkpoint  # noqa: E402
from sprat.runtime.backends.onnx import newer_graph  # noqa: E402
from sprat.runtime.backends.onnx.newer_graph import fastest_graph  # noqa: E402
from sprat.runtime.engine import Engine  # noqa: E402
from sprat.runtime.files.onnx.file import NEWER_NAME, ONNXFile  # noqa: E402

TOKENS = list(range(3, 40))


class Library:
    """onnxruntime of some version."""

    def __init__(self, version):
        self.__version__ = version


@pytest.fixture
def checkpoint(tmp_path):
    changes = {"hidden_size": 128, "moe_intermediate_size": 64, "num_hidden_layers": 2}
    return Checkpoint.open(write_checkpoint(tmp_path / "tiny", "deepseek2", **changes))


@pytest.fixture
def model(checkpoint, tmp_path):
    return onnx_models.write(tmp_path / "out", checkpoint, "int8") / "model.onnx"


def chosen(path, version, monkeypatch):
    """The name of the graph that runs in one version of onnxruntime."""
    monkeypatch.setattr(newer_graph, "onnxruntime", lambda: Library(version))
    return fastest_graph(ONNXFile.open(path)).path.name


@pytest.mark.parametrize(
    ("version", "name"),
    [("1.22.1", "model.onnx"), ("1.30.0", "model.onnx"), ("1.31.0", NEWER_NAME), ("2.0.0+rc1", NEWER_NAME)],
)
def test_the_installed_version_decides(model, monkeypatch, version, name):
    assert chosen(model, version, monkeypatch) == name


def test_both_graphs_give_the_same_logits(model):
    found = []
    for name in ("model.onnx", NEWER_NAME):
        with Engine.load(model.with_name(name), backend="onnx") as engine:
            found.append(engine.backend.new_stream(64).forward(TOKENS))
    assert np.abs(found[0] - found[1]).max() <= 1e-3 * np.abs(found[0]).max()


def test_a_changed_graph_runs_itself(model, monkeypatch):
    changed = onnx.load(model, load_external_data=False)
    changed.doc_string = "edited"
    model.write_bytes(changed.SerializeToString())
    assert chosen(model, "1.32.0", monkeypatch) == "model.onnx"


def test_a_newer_graph_of_another_model_is_not_taken(model, monkeypatch):
    path = model.with_name(NEWER_NAME)
    changed = onnx.load(path, load_external_data=False)
    entry = next(entry for entry in changed.metadata_props if entry.key == "sprat.spec")
    entry.value = entry.value.replace('"max_context":', '"max_context":1')
    path.write_bytes(changed.SerializeToString())
    assert chosen(model, "1.32.0", monkeypatch) == "model.onnx"


def test_a_damaged_newer_graph_is_an_error(model, monkeypatch):
    path = model.with_name(NEWER_NAME)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelFileError, match=NEWER_NAME):
        chosen(model, "1.32.0", monkeypatch)


@pytest.mark.parametrize(
    ("quant", "options"), [("f32", {}), ("int4", {"portable": True}), ("int4", {"ort": FAST_QMOE})], ids=str
)
def test_a_graph_without_a_faster_form_is_alone(checkpoint, tmp_path, quant, options):
    folder = onnx_models.write(tmp_path / "out", checkpoint, quant, **options)
    assert {path.name for path in folder.glob("*.onnx")} == {"model.onnx"}
