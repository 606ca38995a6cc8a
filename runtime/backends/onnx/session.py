"""onnxruntime sessions, on the CPU or with a provider; errors are a ``BackendError``.

Session options keep memory low for small devices, and threads stop spinning after each run.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sprat.errors import BackendError
from sprat.runtime.backends.flush_denormals import subnormals_as_zero
from sprat.runtime.backends.providers.library import LOG_ERRORS, onnxruntime
from sprat.runtime.backends.providers.names import CPU, full_name, install_hint
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.files.onnx.checks import check_onnx, nested_graphs
from sprat.runtime.interrupt import InterruptError, current_interrupt

__all__ = ["EXPORT_AGAIN", "LOG_VERBOSE", "open_session", "ort_errors", "run_session"]

EXPORT_AGAIN = "export it again"
_MOST_REASON = 300  # characters of an error of onnxruntime
LOG_VERBOSE, _LOG_FATAL = 0, 4
_EXPERT_PRODUCTS = "ORT_QMOE_CPU_QNBIT_GEMM"  # overrides the accuracy level of QMoE
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"  # of a graph that does not come from a file
_CONFIG = {
    "session.intra_op.allow_spinning": "1",  # a token is hundreds of short kernels, too short to wake threads for each
    "session.force_spinning_stop": "1",  # but not after the run
    "session.set_denormal_as_zero": "1",  # in its threads; for the caller's see sprat.runtime.backends.flush_denormals
}


def open_session(
    path: Path,
    *,
    n_threads: int,
    arena: bool = False,
    small_experts: bool = False,
    provider: ProviderSettings | None = None,
    log: int = LOG_ERRORS,
) -> Any:
    """An ``InferenceSession`` over a checked model.

    Args:
        path: the model.
        n_threads: number of threads; 0 for onnxruntime's choice.
        arena: allocate activations in onnxruntime's arena. After the first long prompt it is smaller than the memory
            that the system's allocator keeps; but grouped-query attention over long contexts was up to 7 % slower with
            it, latent attention was not (measured).
        small_experts: less memory, lower speed: expert products with float32 activations. A block of 32 int4 weights
            (18 bytes) then takes 2 bytes more, for a float32 scale, instead of 10 with int8 activations.
        provider: computes what it can, the CPU the rest; by default the CPU computes everything.
        log: onnxruntime's least severity of messages.

    Raises:
        BackendError: onnxruntime rejects the model, lacks the provider, or cannot use it.
    """
    options = _options(n_threads, arena, log)
    experts = {_EXPERT_PRODUCTS: "fp32"} if small_experts else {}
    model: str | bytes = os.fspath(path)
    if small_experts:
        model = _with_float_experts(path)
        options.add_session_config_entry(_DATA_FOLDER, os.fspath(path.parent))
    what = f"{path}: onnxruntime cannot load this model{_with(provider)}"
    with ort_errors(what, _remedy(provider)), subnormals_as_zero(), _environment(experts):
        return _session(model, options, provider)


def _options(n_threads: int, arena: bool, log: int) -> Any:
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = False  # shapes change from run to run
    options.log_severity_level = log
    for key, value in _CONFIG.items():
        options.add_session_config_entry(key, value)
    return options


def _session(model: str | bytes, options: Any, provider: ProviderSettings | None) -> Any:
    """The session; onnxruntime itself would only warn about a provider that it does not have or cannot start."""
    ort = onnxruntime()
    if provider is None:
        return ort.InferenceSession(model, options, providers=[CPU])
    name = full_name(provider.name)
    if name not in (available := ort.get_available_providers()):
        raise BackendError(
            f"onnxruntime {ort.__version__} has no {name}, only {', '.join(available)}; {install_hint(provider.name)}"
        )
    session = ort.InferenceSession(model, options, providers=provider.session_providers(), enable_fallback=0)
    if name not in session.get_providers():
        raise RuntimeError(f"{name} does not start with the options {dict(provider.options)}")
    return session


def _with(provider: ProviderSettings | None) -> str:
    return f" with {provider.name}" if provider else ""


def _remedy(provider: ProviderSettings | None) -> str:
    return (
        "check the device's driver and the provider's options, or leave the provider out" if provider else EXPORT_AGAIN
    )


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
def ort_errors(what: str, remedy: str = EXPORT_AGAIN) -> Iterator[None]:
    """Convert onnxruntime's exceptions into a ``BackendError`` that begins with ``what`` and ends with ``remedy``."""
    try:
        yield
    except _error_types() as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[-1]  # the cause; providers quote their calls before it, with whole signatures
        cut = f"... {reason[-_MOST_REASON:]}" if len(reason) > _MOST_REASON else reason
        raise BackendError(f"{what} ({cut}); {remedy}") from error


@functools.cache
def _error_types() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)  # pybind11 raises these two
