"""The package onnxruntime: whether it is installed, and its import with telemetry off."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

from sprat.errors import BackendError

__all__ = ["LOG_ERRORS", "missing_because", "onnxruntime"]

LOG_ERRORS = 3
_INSTALL = "pip install 'sprat[onnx]'"


def missing_because() -> str:
    """Why onnxruntime is not available; empty if it is. It is not imported."""
    missing = [name for name in ("onnxruntime", "onnx") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed; {_INSTALL}" if missing else ""


@functools.cache
def onnxruntime() -> Any:
    """The library, with telemetry off.

    Raises:
        BackendError: it is not installed, or cannot be imported.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: builds with telemetry send an event on import
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(f"onnxruntime cannot be imported ({error}); {_INSTALL}") from error
    ort.disable_telemetry_events()
    ort.set_default_logger_severity(LOG_ERRORS)
    return ort
