"""onnxruntime as sprat uses it: telemetry off before it is imported, the CPU alone, its errors as sprat's.

What a session keeps in memory is chosen for small devices, and threads stop spinning when an answer is complete.
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

__all__ = ["INSTALL", "missing_because", "onnxruntime", "open_session", "ort_errors"]

INSTALL = "pip install 'sprat[onnx]'"
_LOG_ERRORS = 3
_EXPERT_PRODUCTS = "ORT_QMOE_CPU_QNBIT_GEMM"  # overrides the accuracy level of QMoE
_CONFIG = {
    "session.intra_op.allow_spinning": "1",  # a token is hundreds of short kernels: no time to wake a thread for each
    "session.force_spinning_stop": "1",  # but not after the last of them
    "session.set_denormal_as_zero": "1",  # in its own threads; for ours see sprat.runtime.backends.flush_denormals
}


def missing_because() -> str:
    """Why there is no onnxruntime here, or nothing; it is not imported."""
    missing = [name for name in ("onnxruntime", "onnx") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed; {INSTALL}" if missing else ""


@functools.cache
def onnxruntime() -> Any:
    """The library, with telemetry off.

    Raises:
        BackendError: it is not installed, or cannot be imported.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: builds with telemetry send an event as they start
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
        n_threads: threads that compute.
        arena: activations lie in onnxruntime's arena. Once the first long prompt has stretched it, it is smaller than
            what the system's allocator keeps; but grouped-query attention over long contexts was up to 7 % slower in
            it, where latent attention was not (measured).
        small_experts: less memory, more time: products with experts keep activations in float32. A block's binary16
            scale then becomes a float32, where int8 products keep 8 bytes more, on top of 18 for 32 weights in int4.

    Raises:
        BackendError: onnxruntime refuses the model.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = False  # sizes change from call to call
    for key, value in _CONFIG.items():
        options.add_session_config_entry(key, value)
    experts = {_EXPERT_PRODUCTS: "fp32"} if small_experts else {}
    with ort_errors(f"{path}: onnxruntime cannot load this model"), subnormals_as_zero(), _environment(experts):
        return ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what is not set already, for a while: what onnxruntime takes from nowhere else, as it makes a session."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def ort_errors(what: str) -> Iterator[None]:
    """Turn what onnxruntime raises into a BackendError that begins with ``what``."""
    try:
        yield
    except _error_types() as error:
        reason = str(error).strip().splitlines()
        raise BackendError(f"{what} ({reason[0] if reason else type(error).__name__}); export it again") from error


@functools.cache
def _error_types() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)  # pybind11 raises these two itself
