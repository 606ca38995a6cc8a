"""The commands that install a llama.cpp for a GPU, and which of them suits this machine."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from sprat.devices.cpu import this_cpu
from sprat.runtime.backends.llamacpp_build import cmake_args

__all__ = ["gpu_install_commands", "likely_kind"]

_OPTIONS = {
    "cuda": "-DGGML_CUDA=ON",
    "vulkan": "-DGGML_VULKAN=ON",
    "metal": "-DGGML_METAL=ON",
    "sycl": "-DGGML_SYCL=ON -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx",
    "opencl": "-DGGML_OPENCL=ON",
}
_MARKS = {
    "cuda": ("proc/driver/nvidia", "dev/nvhost-gpu"),
    "opencl": ("dev/kgsl-3d0",),
    "sycl": ("opt/intel/oneapi/compiler",),
    "vulkan": ("dev/dri",),
}


def gpu_install_commands() -> dict[str, str]:
    """Kind of GPU -> the shell command that compiles llama-cpp-python for it on this machine's CPU.

    The compilers are not part of it: CUDA's toolkit, Vulkan's headers and ``glslc``, oneAPI for SYCL.
    """
    own = cmake_args(this_cpu().features)
    install = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python 'sprat[llamacpp]'"
    return {kind: f"CMAKE_ARGS='{own} {option}' {install}" for kind, option in _OPTIONS.items()}


def likely_kind(root: Path = Path("/")) -> str | None:
    """The kind of GPU that this machine seems to have, from its drivers' files below ``root``; none if there are none.

    SYCL only where its compiler is installed: Vulkan runs on the same GPUs, and needs none.
    """
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "metal"
    return next((kind for kind, marks in _MARKS.items() if any((root / mark).exists() for mark in marks)), None)
