"""onnxruntime sessions: telemetry off before the import, CPU only, errors as ``BackendError``.

Session options keep memory low for small devices, and threads stop spinning after each run.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sprat.errors import BackendError
from sprat.runtime.backends.flush_denormals import subnormals_as_zero
from sprat.runtime.files.onnx.checks import check_onnx, nested_graphs
from sprat.runtime.interrupt import InterruptError, current_interrupt

__all__ = ["INSTALL", "missing_because", "onnxruntime", "open_session", "ort_errors", "run_session"]

INSTALL = "pip install 'sprat[onnx]'"
_LOG_ERRORS, _LOG_FATAL = 3, 4
_EXPERT_PRODUCTS = "ORT_QMOE_CPU_QNBIT_GEMM"  # overrides the accuracy level of QMoE
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"  # of a graph that does not come from a file
_CONFIG = {
    "session.intra_op.allow_spinning": "1",  # a token is hundreds of short kernels, too short to wake threads for each
    "session.force_spinning_stop": "1",  # but not after the run
    "session.set_denormal_as_zero": "1",  # in its threads; for the caller's see sprat.runtime.backends.flush_denormals
}


def missing_because() -> str:
    """Why onnxruntime is not available; empty if it is. It is not imported."""
    missing = [name for name in ("onnxruntime", "onnx") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed; {INSTALL}" if missing else ""


@functools.cache
def onnxruntime() -> Any:
    """The library, with telemetry off.

    Raises:
        BackendError: it is not installed, or cannot be imported.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: builds with telemetry send an event on import
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(f"onnxruntime cannot be imported ({error}); {INSTALL}") from error
    ort.disable_telemetry_events()
    ort.set_default_logger_severity(_LOG_ERRORS)
    return ort


def open_session(path: Path, *, n_threads: int, arena: bool = False, small_experts: bool = False) -> Any:
    """An ``InferenceSession`` on the CPU over a checked model.

    Args:
        path: the model.
        n_threads: number of threads.
        arena: allocate activations in onnxruntime's arena. After the first long prompt it is smaller than the memory
            that the system's allocator keeps; but grouped-query attention over long contexts was up to 7 % slower with
            it, latent attention was not (measured).
        small_experts: less memory, lower speed: expert products with float32 activations. A block of 32 int4 weights
            (18 bytes) then takes 2 bytes more, for a float32 scale, instead of 10 with int8 activations.

    Raises:
        BackendError: onnxruntime rejects the model.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = False  # shapes change from run to run
    for key, value in _CONFIG.items():
        options.add_session_config_entry(key, value)
    experts = {_EXPERT_PRODUCTS: "fp32"} if small_experts else {}
    model: str | bytes = os.fspath(path)
    if small_experts:
        model = _with_float_experts(path)
        options.add_session_config_entry(_DATA_FOLDER, os.fspath(path.parent))
    with ort_errors(f"{path}: onnxruntime cannot load this model"), subnormals_as_zero(), _environment(experts):
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, io: Any) -> None:
    """Run the graph of an ``InferenceSession`` with bound inputs and outputs; an interrupt ends it between two nodes.

    Raises:
        InterruptError: the current interrupt was set; the outputs are incomplete.
    """
    interrupt = current_interrupt()
    if interrupt is None:
        session.run_with_iobinding(io)
        return
    options = onnxruntime().RunOptions()
    options.log_severity_level = _LOG_FATAL  # it would log the interrupt as an error; other errors are raised
    with interrupt.watch(lambda: setattr(options, "terminate", True)):
        try:
            session.run_with_iobinding(io, options)
        except Exception as error:
            if options.terminate:
                raise InterruptError("onnxruntime was told to stop") from error
            raise


def _with_float_experts(path: Path) -> bytes:
    """The graph without the accuracy level of products in branches, which are the experts': theirs is then float32."""
    model = check_onnx(path)
    for graph in nested_graphs(model):
        for node in graph.node:
            kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return bytes(model.SerializeToString())


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, while a session is created: onnxruntime has no option for them."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def ort_errors(what: str) -> Iterator[None]:
    """Convert onnxruntime's exceptions into a ``BackendError`` that begins with ``what``."""
    try:
        yield
    except _error_types() as error:
        reason = str(error).strip().splitlines()
        raise BackendError(f"{what} ({reason[0] if reason else type(error).__name__}); export it again") from error


@functools.cache
def _error_types() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)  # pybind11 raises these two
