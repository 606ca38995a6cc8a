"""sprat's graphs under onnxruntime's OpenVINO provider, on the CPU: its wheel in .venv/onnxruntime/openvino."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from golden_models import GOLDEN
from onnx_models import write
from tiny_checkpoint import write_checkpoint

from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint

WHEEL = Path(os.environ.get("SPRAT_OPENVINO", Path(__file__).parents[4] / ".venv" / "onnxruntime" / "openvino"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (WHEEL / "onnxruntime").is_dir(), reason="make .venv/.openvino"),
]


@pytest.fixture
def sprat(tmp_path):
    """Runs a command with the wheel."""
    paths = os.pathsep.join(filter(None, [str(WHEEL), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*arguments):
        command = [sys.executable, "-m", "sprat", *map(str, arguments)]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    return run


@pytest.mark.parametrize("name", ["r1-distill-qwen", "youtu-llm"])
@pytest.mark.parametrize("portable", [True, False])
def test_dense_graphs_in_float32_are_right(name, portable, sprat, tmp_path):
    folder = write(tmp_path / "out", Checkpoint.open(GOLDEN / name), portable=portable)
    found = json.loads(sprat("inspect", folder / "model.onnx", "--provider", "openvino", "--json").stdout)["provider"]
    assert not found["problem"]
    assert found["prompt_error"] < 1e-5
    assert found["decode_error"] < 1e-5
    assert found["n_nodes"]


@pytest.fixture
def bundle(tmp_path):
    source = write_checkpoint(tmp_path / "tiny", "llama")
    return export(source, tmp_path / "out", quant="f32", formats=["onnx"]).bundle.path


def test_an_answer_is_that_of_the_cpu_and_a_benchmark_names_the_provider(sprat, bundle):
    command = ("run", bundle, "The quick brown fox", "--temp", "0", "-n", "8")
    found = sprat(*command, "--provider", "openvino")
    assert "onnx with openvino" in found.stderr
    assert found.stdout == sprat(*command).stdout
    measured = sprat("bench", bundle, "--provider", "openvino", "-p", 8, "-n", 0, "-r", 1, "--json")
    assert json.loads(measured.stdout.splitlines()[0])["settings"]["provider"] == "openvino"


@pytest.mark.parametrize(("option", "why"), [("device_type=GPU", "does not start"), ("devise=GPU", "unknown option")])
def test_a_device_or_an_option_that_is_not_there_is_one_error(sprat, bundle, option, why):
    """onnxruntime itself would compute on the CPU with a warning."""
    refused = sprat("run", bundle, "The", "--provider", "openvino", "--provider-option", option)
    assert refused.returncode
    assert why in refused.stderr
    assert not refused.stdout


def test_int4_weights_that_it_computes_wrongly_are_refused(sprat, tmp_path):
    folder = write(tmp_path / "out", Checkpoint.open(GOLDEN / "r1-distill-qwen"), "int4")
    refused = sprat("run", folder / "model.onnx", "The", "--provider", "openvino")
    assert "openvino computes a prompt wrongly" in refused.stderr
