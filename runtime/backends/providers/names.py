"""Providers by short names, and the packages that have them."""

from __future__ import annotations

from sprat.errors import InputError

__all__ = ["CPU", "check_provider_name", "full_name", "install_hint"]

CPU = "CPUExecutionProvider"

_PROVIDERS = {  # name -> onnxruntime's name, the wheel on PyPI that has it
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "qnn": ("QNNExecutionProvider", "onnxruntime-qnn"),
    "webgpu": ("WebGpuExecutionProvider", "onnxruntime-webgpu"),
}


def check_provider_name(name: str) -> None:
    """Check that ``name`` is a provider.

    Raises:
        InputError: it is none; the message lists them.
    """
    if name not in _PROVIDERS:
        raise InputError(f"provider {name[:40]!r}: not known; expected one of {', '.join(_PROVIDERS)}")


def full_name(name: str) -> str:
    """The name in onnxruntime: that of ``webgpu`` is ``WebGpuExecutionProvider``."""
    return _PROVIDERS[name][0]


def install_hint(name: str) -> str:
    """How to install the wheel of a provider; each has a module ``onnxruntime``, so one replaces another."""
    wheel = _PROVIDERS[name][1]
    return (
        f"pip install --no-deps --target {wheel} {wheel}, and run this again with PYTHONPATH={wheel} "
        "(installed beside the onnxruntime of this environment, it would replace it)"
    )
