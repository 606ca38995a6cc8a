"""``sprat doctor``: the CPU, the native core, the backends that run on this machine; and every check of a model."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sprat.app.model_reference import find_source
from sprat.devices.cpu import CPU, this_cpu
from sprat.errors import BackendError, InputError, SpratError
from sprat.native import core, missing_because
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.backends.gpu.find import GPUDevice, find_gpus
from sprat.runtime.files.bundle import MANIFEST_NAME, has_manifest
from sprat.runtime.health import Finding, examine
from sprat.runtime.open_model import open_model

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
    gpus: tuple[GPUDevice, ...] = ()  # that llama.cpp can use
    gpu_detail: str = ""  # what a model would get there, why there is none, or how to install a build for a GPU
    model: tuple[Finding, ...] = ()  # of the model that was examined, if one was

    @property
    def passed(self) -> bool:
        """Whether every check of the model passed."""
        return all(finding.passed for finding in self.model)


def doctor(model: str | os.PathLike[str] | None = None, *, progress: ReportProgress = no_progress) -> Diagnosis:
    """Examine this machine, without loading a backend that could crash the interpreter, and a model on it.

    Args:
        model: a bundle, a GGUF or an ONNX model, of which everything is checked that can be without its source: sizes,
            hashes, headers, every weight, tokenizer, chat template, and the logits of a short prompt.
        progress: of the hashes, in bytes.

    Raises:
        InputError: ``model`` is a checkpoint.
    """
    path = None if model is None else find_source(model)
    gpus, gpu_detail = _gpus(path)
    return Diagnosis(
        model=() if path is None else _examine(path, progress),
        gpus=gpus,
        gpu_detail=gpu_detail,
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


def _examine(path: Path, progress: ReportProgress) -> tuple[Finding, ...]:
    if path.is_dir() and not has_manifest(path):
        raise InputError(f"{path}: no {MANIFEST_NAME} in it, expected a bundle or a model file; inspect a checkpoint")
    return examine(path, progress)


def _gpus(model: Path | None) -> tuple[tuple[GPUDevice, ...], str]:
    """The GPUs, found in a child process; and what ``model`` gets on the best, or what is missing."""
    from sprat.runtime.backends.gpu.install import gpu_install_commands, likely_kind

    try:
        gpus = tuple(find_gpus())
    except BackendError as error:
        gpus, why = (), str(error)
    else:
        why = "none that this llama-cpp-python can use"
    if gpus:
        return gpus, "" if model is None else _placement(model)
    kind = likely_kind()
    if kind is None:
        return (), f"{why}; for a GPU of another kind than Apple's, with its driver: {gpu_install_commands()['vulkan']}"
    return (), f"{why}; a build for this machine's ({kind}): {gpu_install_commands()[kind]}"


def _placement(path: Path) -> str:
    """The placement of ``gpu="auto"``, in words; only the header is read."""
    from sprat.runtime.backends.gpu.attention_shape import AttentionShape
    from sprat.runtime.backends.gpu.place import place_on_gpu
    from sprat.runtime.gpu_option import GPUOption
    from sprat.runtime.memory.footprint import file_footprint

    try:
        model = open_model(path, "llamacpp")
        footprint, shape = file_footprint(model.spec, model.file), AttentionShape.of(model.spec.attention)
        return place_on_gpu(GPUOption.of("auto"), footprint, shape).text()
    except SpratError as error:  # a damaged file is a finding of the checks
        return f"nothing: {error}"


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
    from sprat.runtime.backends.providers.library import missing_because as onnx_missing_because

    if why := onnx_missing_because():
        return BackendState("onnx", False, why)
    return BackendState("onnx", True, f"onnxruntime {version('onnxruntime')}, for ONNX models; telemetry off")
