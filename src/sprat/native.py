"""The native core, or the reason why there is none.

Rooms that own a hot loop ask here: ``core`` is the extension module or ``None``, and NumPy does the work then.
``SPRAT_NATIVE=0`` in the environment switches it off at run time, as it leaves it out at build time. A core that was
built from another checkout is not used: it may lack what this one relies on, and would compute without it.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

__all__ = ["ABI", "core", "missing_because"]

ABI = 4
"""``kAbi`` of ``_core.cpp``."""


def _load() -> tuple[ModuleType | None, str]:
    if os.environ.get("SPRAT_NATIVE") == "0":
        return None, "switched off by SPRAT_NATIVE=0"
    try:
        module = importlib.import_module("sprat._core")
    except ImportError as error:
        return None, f"not built ({error}); install a C++ compiler and reinstall sprat"
    abi = getattr(module, "abi", 1)
    if abi != ABI:
        return None, f"{module.__file__} was built from another version (ABI {abi}, expected {ABI}); reinstall sprat"
    return module, ""


core, missing_because = _load()
