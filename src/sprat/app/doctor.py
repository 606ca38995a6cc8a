"""``sprat doctor``: the CPU, the native core, and the backends that run on this machine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import version

from sprat.devices.cpu import CPU, this_cpu
from sprat.native import core, missing_because

__all__ = ["BackendState", "Diagnosis", "doctor"]


@dataclass(frozen=True, slots=True)
class BackendState:
    """Whether one backend is usable; ``detail`` says why, or what to install."""

    name: str
    usable: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The state of this machine, for a bug report."""

    sprat: str
    cpu: CPU
    native_core: bool
    native_missing_because: str
    backends: tuple[BackendState, ...]


def doctor() -> Diagnosis:
    """Examine this machine without loading a backend that could crash the interpreter."""
    return Diagnosis(
        sprat=version("sprat"),
        cpu=this_cpu(),
        native_core=core is not None,
        native_missing_because=missing_because,
        backends=(
            _native_state(),
            BackendState("reference", True, "NumPy, always available"),
            _llamacpp_state(),
            _onnx_state(),
        ),
    )


def _native_state() -> BackendState:
    from sprat.runtime.kernels.native import instruction_sets, native_missing_because

    if why := native_missing_because():
        return BackendState("native", False, why)
    return BackendState(
        "native",
        True,
        f"C++ kernels for {instruction_sets()[0]}; the first choice for a file whose formats it supports",
    )


def _llamacpp_state() -> BackendState:
    if importlib.util.find_spec("llama_cpp") is None:
        from sprat.runtime.backends.llamacpp_build import install_command

        return BackendState("llamacpp", False, f"not installed; for this CPU: {install_command()}")
    return BackendState(
        "llamacpp", True, f"llama-cpp-python {version('llama-cpp-python')}, tested in a child process at the first load"
    )


def _onnx_state() -> BackendState:
    from sprat.runtime.backends.onnx_session import missing_because as onnx_missing_because

    if why := onnx_missing_because():
        return BackendState("onnx", False, why)
    return BackendState("onnx", True, f"onnxruntime {version('onnxruntime')}, for ONNX models; telemetry off")
