"""Importance of weights: what the squared error of each one counts in a search.

A product's expected squared error is the sum over columns of the weight's squared error times the mean square of the
column's activations, if these are uncorrelated (llama.cpp's imatrix holds the mean squares).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array
from sprat.errors import FormatError

__all__ = ["RowImportance", "normalized"]

_FLOOR = np.float32(2.0**-16)


class RowImportance(msgspec.Struct, frozen=True):
    """Importance of the rows of a tensor, without a copy for rows that share it.

    Attributes:
        distinct: ``(m, k)``.
        which: for each row, in C order, the index of its importance in ``distinct``.
    """

    distinct: F32Array
    which: npt.NDArray[np.int64]

    @classmethod
    def of(cls, importance: F32Array, shape: tuple[int, ...], format_name: str) -> RowImportance:
        """The importance of a tensor of ``shape``, to which ``importance`` broadcasts.

        Raises:
            FormatError: it does not broadcast; an element is negative, infinite or NaN.
        """
        found = np.atleast_1d(np.asarray(importance, dtype=np.float32))
        try:
            np.broadcast_to(found, shape)
        except ValueError:
            raise FormatError(
                f"{format_name}: importance of shape {found.shape} does not broadcast to weights of shape {shape}; "
                f"pass one element per column, ({shape[-1]},), or one per weight"
            ) from None
        bad = ~(np.isfinite(found) & (found >= 0))
        if bad.any():
            at = tuple(int(i) for i in np.unravel_index(bad.argmax(), found.shape))
            raise FormatError(
                f"{format_name}: importance holds {found[at]} at {at}; every element must be finite and at least 0"
            )
        rows = np.broadcast_to(found, (*found.shape[:-1], shape[-1])).reshape(-1, shape[-1])
        index = np.arange(len(rows)).reshape(found.shape[:-1])
        which = np.broadcast_to(index, shape[:-1]).reshape(math.prod(shape[:-1]))
        return cls(np.ascontiguousarray(rows), np.ascontiguousarray(which, dtype=np.int64))

    def blocks(self, start: int, stop: int, block_size: int) -> F32Array:
        """The importance of rows ``start`` to ``stop``, normalized per block: ``(n, block_size)``."""
        return normalized(self.distinct[self.which[start:stop]].reshape(-1, block_size))


def normalized(blocks: F32Array) -> F32Array:
    """Blocks ``(n, block_size)`` divided by their largest element, and none of it below 2^-16.

    Only ratios within a block matter. A column that no calibration token used still counts a little, and a block of
    them counts evenly, so that every search has an answer.
    """
    largest = blocks.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        ratio = np.where(largest > 0, blocks / largest, np.float32(1))
    return np.maximum(ratio, _FLOOR)
