"""The native core's conversions between block formats; callers fall back to NumPy where it has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.native import core

__all__ = ["convert", "scan"]

_KNOWN = frozenset(core.block_types() if core is not None else ())


def convert(source_type: int, target_type: int, source: npt.NDArray[Any], target: npt.NDArray[Any]) -> bool:
    """Repack the blocks of ``source`` as those of ``target``, both contiguous, over all cores.

    Returns:
        Whether it was done; not without the native core, or for a format that it does not know.
    """
    if core is None or not {source_type, target_type} <= _KNOWN:
        return False
    core.convert(source_type, target_type, _as_bytes(source), _as_bytes(target))
    return True


def scan(source_type: int, source: npt.NDArray[Any]) -> tuple[bool, int | None]:
    """Whether contiguous ``source`` was scanned, and the index of its first weight that is NaN or infinite."""
    if core is None or source_type not in _KNOWN:
        return False, None
    return True, core.first_nonfinite(source_type, _as_bytes(source))


def _as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)
