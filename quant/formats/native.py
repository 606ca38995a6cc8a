"""Conversions between block formats in the native core; callers fall back to NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.native import core

__all__ = ["convert", "quantize", "scan"]

_NATIVE_TYPES = frozenset(core.block_types() if core is not None else ())


def convert(source_type: int, target_type: int, source: npt.NDArray[Any], target: npt.NDArray[Any]) -> bool:
    """Convert the blocks of ``source`` to ``target``, both contiguous, on all cores.

    Returns:
        Whether it was done; ``False`` without the native core, or for a format that it does not have.
    """
    if core is None or not {source_type, target_type} <= _NATIVE_TYPES:
        return False
    core.convert(source_type, target_type, _as_bytes(source), _as_bytes(target))
    return True


def quantize(
    target_type: int,
    rows: npt.NDArray[np.float32],
    importance: npt.NDArray[np.float32],
    which: npt.NDArray[np.int64],
    target: npt.NDArray[np.uint8],
) -> bool:
    """Quantize ``(n, k)`` rows with the importance ``importance[which]``, all contiguous, on all cores.

    Returns:
        Whether it was done, as in :func:`convert`.
    """
    if core is None or target_type not in _NATIVE_TYPES or not hasattr(core, "quantize_weighted"):
        return False
    core.quantize_weighted(target_type, rows, importance, which, _as_bytes(target))
    return True


def scan(source_type: int, source: npt.NDArray[Any]) -> tuple[bool, int | None]:
    """Whether the contiguous ``source`` was scanned, and the index of its first NaN or Inf weight."""
    if core is None or source_type not in _NATIVE_TYPES:
        return False, None
    return True, core.first_nonfinite(source_type, _as_bytes(source))


def _as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)
