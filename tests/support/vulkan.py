"""llama.cpp on a Vulkan device that is the CPU: ``make .venv/.vulkan`` fetches the library, Debian has the driver.

``SPRAT_TEST_VULKAN`` names another folder with a ``libllama.so`` for Vulkan. The driver is Mesa's llvmpipe. Its
compiler takes ten minutes to optimize llama.cpp's shaders, and one without passes of optimization: the models of the
tests are small. Compiled shaders are kept for the next process.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["environment", "is_installed"]

_OWN = Path(__file__).parents[2] / ".venv"
_LIBRARY = Path(os.environ.get("SPRAT_TEST_VULKAN", _OWN / "vulkan"))
_DRIVER = Path("/usr/share/vulkan/icd.d/lvp_icd.x86_64.json")


def is_installed() -> bool:
    """Whether library and driver are there."""
    return (_LIBRARY / "libllama.so").exists() and _DRIVER.is_file()


def environment() -> dict[str, str]:
    """The variables of a child process that computes on the software driver."""
    return {
        **os.environ,
        "LLAMA_CPP_LIB_PATH": str(_LIBRARY),
        "GGML_VK_VISIBLE_DEVICES": "0",
        "VK_ICD_FILENAMES": str(_DRIVER),
        "GALLIVM_PERF": "nopt",
        "MESA_SHADER_CACHE_DIR": str(_LIBRARY / "shaders"),
    }
