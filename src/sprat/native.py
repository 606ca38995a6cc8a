"""The native core, or the reason why there is none.

Rooms that own a hot loop ask here: ``core`` is the extension module or ``None``, and NumPy does the work then.
``SPRAT_NATIVE=0`` in the environment switches it off at run time, as it leaves it out at build time.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

__all__ = ["core", "missing_because"]


def _load() -> tuple[ModuleType | None, str]:
    if os.environ.get("SPRAT_NATIVE") == "0":
        return None, "switched off by SPRAT_NATIVE=0"
    try:
        return importlib.import_module("sprat._core"), ""
    except ImportError as error:
        return None, f"not built ({error}); install a C++ compiler and reinstall sprat"


core, missing_because = _load()
