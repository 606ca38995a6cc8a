"""sprat's graphs under onnxruntime's WebGPU provider, on a Vulkan driver for the CPU (docs/onnx.md)."""

import json
import subprocess
import sys
from functools import cache

import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import webgpu
from golden_models import GOLDEN
from onnx_models import write

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
