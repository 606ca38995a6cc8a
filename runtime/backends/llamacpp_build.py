"""CMake options for llama-cpp-python, whose default build aborts on CPUs with AMX.

llama-cpp-python is an sdist: it is compiled on installation, by default with ``GGML_NATIVE=ON``. On a CPU with AMX that
build repacks matrices into tile buffers that do not support stacked experts, and aborts with
``GGML_ASSERT(*cur_backend_id != -1)`` when it creates a context for an MoE model. The options here list every
instruction set except AMX.

``python -m sprat.runtime.backends.llamacpp_build`` prints the value for this CPU::

    CMAKE_ARGS="$(python -m sprat.runtime.backends.llamacpp_build)" pip install 'sprat[llamacpp]'
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from sprat.devices.cpu import this_cpu

__all__ = ["cmake_args", "install_command"]

# sprat's name of an instruction set -> ggml's CMake options. AMX is left out, see above.
_X86_OPTIONS = {
    "avx2": ("GGML_AVX", "GGML_AVX2"),
    "fma": ("GGML_FMA",),
    "f16c": ("GGML_F16C",),
    "bmi2": ("GGML_BMI2",),
    "avx512": ("GGML_AVX512",),
    "avx512_vbmi": ("GGML_AVX512_VBMI",),
    "avx512_vnni": ("GGML_AVX512_VNNI",),
    "avx_vnni": ("GGML_AVX_VNNI",),
}
_ARM_SUFFIXES = {"dotprod": "+dotprod", "fp16": "+fp16", "i8mm": "+i8mm", "sve": "+sve"}


def cmake_args(features: Mapping[str, bool]) -> str:
    """``CMAKE_ARGS`` for a CPU with these instruction sets (names of :func:`sprat.devices.cpu.this_cpu`).

    Example:
        >>> cmake_args({"neon": True, "dotprod": True, "i8mm": False})
        '-DGGML_NATIVE=OFF -DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod'
    """
    arguments = ["-DGGML_NATIVE=OFF"]
    if "neon" in features:
        arguments += [f"-DGGML_CPU_ARM_ARCH={_arm_architecture(features)}"]
    else:
        # Each is set to ON or OFF: ggml enables the older ones by default.
        arguments += [
            f"-D{option}={'ON' if features.get(name) else 'OFF'}"
            for name, options in _X86_OPTIONS.items()
            for option in options
        ]
    return " ".join(arguments)


def install_command() -> str:
    """The shell command that installs llama-cpp-python on this machine."""
    return f"CMAKE_ARGS='{cmake_args(this_cpu().features)}' pip install 'sprat[llamacpp]'"


def _arm_architecture(features: Mapping[str, bool]) -> str:
    suffixes = [suffix for name, suffix in _ARM_SUFFIXES.items() if features.get(name)]
    return ("armv8.2-a" if suffixes else "armv8-a") + "".join(suffixes)


if __name__ == "__main__":
    sys.stdout.write(cmake_args(this_cpu().features) + "\n")
