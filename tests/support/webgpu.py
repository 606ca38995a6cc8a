"""onnxruntime's WebGPU provider on the CPU: ``make .venv/.webgpu`` installs its wheel, Chromium brings a Vulkan driver.

The driver is SwiftShader. ``SPRAT_WEBGPU`` names another folder with the wheel, ``SPRAT_SWIFTSHADER`` another one with
``libvulkan.so.1`` and the driver's description.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["environment", "is_installed"]

_WHEEL = Path(os.environ.get("SPRAT_WEBGPU", Path(__file__).parents[2] / ".venv" / "onnxruntime" / "webgpu"))
_DRIVER = Path(os.environ.get("SPRAT_SWIFTSHADER", "/usr/lib/chromium"))
_DESCRIPTION = _DRIVER / "vk_swiftshader_icd.json"


def is_installed() -> bool:
    """Whether wheel and driver are there."""
    return (_WHEEL / "onnxruntime").is_dir() and _DESCRIPTION.is_file()


def environment() -> dict[str, str]:
    """The variables of a child process that runs graphs on SwiftShader."""
    paths = [str(_WHEEL), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "LD_LIBRARY_PATH": str(_DRIVER),
        "VK_ICD_FILENAMES": str(_DESCRIPTION),
    }
