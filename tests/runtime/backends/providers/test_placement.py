"""What ``sprat inspect --provider`` reads from onnxruntime's verbose log, and its errors."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from sprat.errors import BackendError
from sprat.runtime.backends.providers import placement
from sprat.runtime.backends.providers.computed import Computed
from sprat.runtime.backends.providers.placement import provider_use, read_placements
from sprat.runtime.backends.providers.settings import ProviderSettings

PREFIX = "2026-11-30 16:51:03.9 [V:onnxruntime:, session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp] "
LOG = f"""\
2026-11-30 16:51:03.8 [I:onnxruntime:, graph.cc:1 Removed] initializer (blk.0)
{PREFIX} Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 3
{PREFIX}  Cos (angles/Cos)
{PREFIX}  Gemm (blk.0/attn/attn_q)
{PREFIX}  Gemm (blk.1/attn/attn_q)
{PREFIX} Node(s) placed on [CPUExecutionProvider]. Number of nodes: 4
{PREFIX}  Shape (Shape)
{PREFIX}  Concat (blk.0/attn/Concat_2)
{PREFIX}  Concat (blk.11/attn/Concat_2)
{PREFIX}  NonZero ()
2026-11-30 16:51:03.9 [I:onnxruntime:, session_state.cc:1 Done] Reshape (not a node)
"""
MODEL, WEBGPU = Path("model.onnx"), ProviderSettings.of("webgpu")


@pytest.fixture
def child(monkeypatch):
    """Sets how the child process ends."""

    def ends(*, code=0, log=LOG, **computed):
        defaults = {"version": "1.27.0", "available": ("WebGpuExecutionProvider", "CPUExecutionProvider")}
        stdout = msgspec.json.encode(Computed(**(defaults | computed))) if code == 0 else b""
        done = subprocess.CompletedProcess([], code, stdout, log.encode())
        monkeypatch.setattr(placement.subprocess, "run", lambda *_, **__: done)
        monkeypatch.setattr(placement, "missing_because", lambda: "")

    return ends


def test_nodes_are_counted_per_provider_and_those_of_the_cpu_are_named():
    counts, fallback = read_placements(LOG.splitlines())
    assert counts == {"WebGpuExecutionProvider": 3, "CPUExecutionProvider": 4}
    assert [(nodes.operator, nodes.name, nodes.n_nodes) for nodes in fallback] == [
        ("Concat", "blk.*/attn/Concat_*", 2),
        ("Shape", "Shape", 1),
        ("NonZero", "", 1),
    ]


def test_a_graph_on_one_provider_is_one_line():
    line = f"{PREFIX} All nodes placed on [CPUExecutionProvider]. Number of nodes: 96"
    assert read_placements([line]) == ({"CPUExecutionProvider": 96}, ())


def test_errors_of_the_logits_are_passed_on(child):
    child(prompt_error=0.34, decode_error=1e-4)
    use = provider_use(MODEL, WEBGPU)
    assert (use.provider, use.version, use.n_nodes, use.n_fallback_nodes) == ("webgpu", "1.27.0", 3, 4)
    assert (use.prompt_error, use.decode_error, use.problem) == (0.34, 1e-4, "")


def test_a_run_that_fails_is_a_problem_beside_the_nodes(child):
    child(problem="Gather requires f16")
    assert provider_use(MODEL, WEBGPU).problem == "Gather requires f16"


def test_a_driver_that_kills_the_child_is_a_problem_beside_the_nodes(child):
    child(code=-11, log=LOG + "device lost\n")
    use = provider_use(MODEL, WEBGPU)
    assert (use.n_nodes, use.problem) == (3, "SIGSEGV: device lost")


def test_a_graph_that_is_not_loaded_is_an_error(child):
    child(code=1, log="Traceback\nsprat.errors.ModelFileError: model.onnx: not an ONNX model\n")
    with pytest.raises(BackendError, match=r"webgpu does not load it \(exit code 1: .*not an ONNX model"):
        provider_use(MODEL, WEBGPU)


def test_a_missing_provider_is_an_error_that_names_its_wheel(child):
    child(available=("CPUExecutionProvider",), log="")
    with pytest.raises(BackendError, match=r"1\.27\.0 has no CUDAExecutionProvider, .* onnxruntime-gpu"):
        provider_use(MODEL, ProviderSettings.of("cuda"))


def test_a_child_that_does_not_end_is_an_error(monkeypatch):
    def wait(*_, **__):
        raise subprocess.TimeoutExpired("child", 1)

    monkeypatch.setattr(placement.subprocess, "run", wait)
    monkeypatch.setattr(placement, "missing_because", lambda: "")
    with pytest.raises(BackendError, match="webgpu did not finish"):
        provider_use(MODEL, WEBGPU)


def test_without_onnxruntime_there_is_an_error(monkeypatch):
    monkeypatch.setattr(placement, "missing_because", lambda: "onnxruntime not installed; pip install 'sprat[onnx]'")
    with pytest.raises(BackendError, match="onnxruntime not installed"):
        provider_use(MODEL, WEBGPU)
