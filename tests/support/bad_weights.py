"""Weights with blocks that dequantize to NaN, infinity or the largest finite value of their scale."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from sprat.quant.formats import BlockFormat
from sprat.runtime.weights import Weight

__all__ = ["KINDS", "BadWeights", "bad_block", "can_hold"]

# Bits of binary16, bfloat16, float32, of MXFP4's exponent byte and of E4M3, which have no infinity.
_PATTERNS = {
    "nan": [b"\x00\x7e", b"\xc0\x7f", b"\x00\x00\xc0\x7f", b"\xff", b"\x7f"],
    "inf": [b"\x00\x7c", b"\x80\x7f", b"\x00\x00\x80\x7f"],
    "minus inf": [b"\x00\xfc", b"\x80\xff", b"\x00\x00\x80\xff"],
    "largest": [b"\xff\x7b", b"\x7f\x7f", b"\xff\xff\x7f\x7f", b"\xdf", b"\x7e"],
}
KINDS = list(_PATTERNS)


@functools.cache
def _field(stored: BlockFormat, kind: str) -> tuple[int, bytes] | None:
    """Where in a block which bytes make most weights bad: found by trying, so that it holds for every format.

    ``None`` for a kind that the format cannot hold.
    """
    block = stored.quantize(np.linspace(-1, 1, stored.block_size, dtype=np.float32)[None])

    def badness(found: tuple[int, bytes]) -> float:
        at, pattern = found
        changed = block.copy()
        changed[..., at : at + len(pattern)] = np.frombuffer(pattern, np.uint8)
        with np.errstate(all="ignore"):
            weights = stored.dequantize(changed)
        if kind != "largest":
            return float((~np.isfinite(weights)).sum())
        return float(np.abs(weights).max()) if np.isfinite(weights).all() else 0.0

    places = [(at, p) for p in _PATTERNS[kind] for at in range(stored.block_bytes - len(p) + 1)]
    worst = max(places, key=badness)
    return worst if badness(worst) else None


def bad_block(stored: BlockFormat, packed: np.ndarray, kind: str) -> np.ndarray:
    """A copy of the blocks in ``packed (..., row_bytes)``, each with a bad scale."""
    field = _field(stored, kind)
    assert field is not None, f"{stored} cannot hold {kind}"
    at, pattern = field
    blocks = np.array(packed).reshape(-1, stored.block_bytes)
    blocks[:, at : at + len(pattern)] = np.frombuffer(pattern, np.uint8)
    return blocks.reshape(packed.shape)


def can_hold(stored: BlockFormat, kind: str) -> bool:
    """Whether the format can hold weights of this kind."""
    return _field(stored, kind) is not None


class BadWeights:
    """A ``WeightSource``: good weights, but every block of the tensor ``bad`` is of a kind."""

    def __init__(self, good: Mapping[str, Weight], bad: str, kind: str) -> None:
        self._weights = dict(good)
        weight = good[bad]
        self._weights[bad] = Weight(bad, weight.format, weight.shape, bad_block(weight.format, weight.packed, kind))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: weight.shape for name, weight in self._weights.items()}

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def check_unchanged(self) -> None:
        """Memory is not a file."""

    def weight(self, name: str) -> Weight:
        return self._weights[name]
