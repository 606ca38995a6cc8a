"""sprat's graphs under onnxruntime's WebGPU provider, on a Vulkan driver for the CPU (docs/onnx.md)."""

import json
import re
import subprocess
import sys
from functools import cache

import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import webgpu
from golden_models import GOLDEN
from onnx_models import write
from tiny_checkpoint import write_checkpoint

from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not webgpu.is_installed(), reason="make .venv/.webgpu, apt install chromium"),
]

PRECISION = 1e-3  # WGSL gives Sin and Cos an absolute error of 2**-11
ON_THE_CPU = {"Shape", "Sub", "Squeeze", "Range", "Add", "ReduceSum", "Cast", "Unsqueeze", "Mul", "Round", "Reshape"}
ON_THE_CPU |= {"Concat", "Neg", "Greater", "Expand"}  # shapes and positions, and angles in float64


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    """What ``sprat inspect --provider webgpu`` says of a model; each child compiles shaders, so it runs once."""

    @cache
    def inspect(name, *, portable=False):
        folder = write(tmp_path_factory.mktemp(name) / "out", Checkpoint.open(GOLDEN / name), portable=portable)
        command = [
            sys.executable,
            "-m",
            "sprat",
            "inspect",
            str(folder / "model.onnx"),
            "--provider",
            "webgpu",
            "--json",
        ]
        child = subprocess.run(command, check=True, capture_output=True, text=True, env=webgpu.environment())
        return json.loads(child.stdout)["provider"]

    return inspect


def test_a_portable_dense_graph_is_right(inspected):
    found = inspected("r1-distill-qwen", portable=True)
    assert not found["problem"]
    assert found["prompt_error"] < PRECISION
    assert found["decode_error"] < PRECISION


@pytest.mark.parametrize("name", ["r1-distill-qwen", "r1-0528-qwen3-odd"])
def test_the_default_dense_graph_is_right_token_by_token(name, inspected):
    found = inspected(name)
    assert not found["problem"]
    assert found["decode_error"] < PRECISION


def test_no_layer_of_a_dense_graph_falls_back_to_the_cpu(inspected):
    found = inspected("r1-distill-qwen")
    assert {nodes["operator"] for nodes in found["fallback"]} <= ON_THE_CPU
    assert found["n_nodes"] > found["n_fallback_nodes"]


def test_a_wrong_operator_is_seen(inspected):
    """GroupQueryAttention takes a subgroup to have 8 lanes when it computes a prompt; SwiftShader's have 4."""
    assert inspected("r1-distill-qwen")["prompt_error"] > 10 * PRECISION


def test_a_moe_graph_that_the_provider_refuses_is_a_problem_beside_its_nodes(inspected):
    found = inspected("deepseek-v2-lite")
    assert found["problem"]
    assert found["n_nodes"]
    assert found["prompt_error"] is None


@pytest.fixture(scope="module")
def sprat(tmp_path_factory):
    """Runs a command with the provider's driver; successes of the check are remembered in a folder of this module."""
    environment = webgpu.environment() | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}

    def run(*arguments):
        command = [sys.executable, "-m", "sprat", *map(str, arguments)]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    return run


def exported(folder, *, portable):
    source = write_checkpoint(folder / "tiny", "llama")
    return source, export(source, folder / "out", quant="f32", formats=["onnx"], portable=portable).bundle.path


def test_an_answer_and_a_verification_are_those_of_the_cpu(sprat, tmp_path):
    source, bundle = exported(tmp_path, portable=True)
    command = ("run", bundle, "The quick brown fox", "--temp", "0", "-n", "8")
    found, expected = sprat(*command, "--provider", "webgpu"), sprat(*command)
    assert "onnx with webgpu" in found.stderr
    assert found.stdout == expected.stdout
    verified = sprat(
        "verify", bundle, "--source", source, "--provider", "webgpu", "--max-kld", 1e-5, "--max-tokens", 64
    )
    assert verified.returncode == 0, verified.stderr
    assert "backend onnx with webgpu" in verified.stdout


def test_a_graph_that_is_computed_wrongly_is_refused(sprat, tmp_path):
    _, bundle = exported(tmp_path, portable=False)
    refused = sprat("run", bundle, "The quick brown fox", "--provider", "webgpu")
    assert refused.returncode
    assert "webgpu computes a prompt wrongly with this driver" in refused.stderr
    assert not refused.stdout


def test_a_driver_that_is_not_there_is_one_error(sprat, tmp_path):
    _, bundle = exported(tmp_path, portable=True)
    environment = webgpu.environment() | {"VK_ICD_FILENAMES": "/nonsense.json", "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "sprat", "run", str(bundle), "The", "--provider", "webgpu"]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert refused.returncode
    assert re.search(r"^sprat: .*webgpu", refused.stderr, re.MULTILINE)
    assert "Traceback" not in refused.stderr
