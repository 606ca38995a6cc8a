"""C++ counterparts of weights and sublayers, each made once: a model passes the same ones for every token."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.kernels.layers import MLP, Sublayer
from sprat.runtime.weights import Weight

__all__ = ["Bindings"]


class Bindings:
    """Objects of :mod:`sprat._core` by the Python records that they are made from; safe to share between threads.

    The core has a class of the same name for each record, and reads the record's attributes by name.

    Args:
        core: the native core.
    """

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        # By identity, with the record, so that its id is not reused: hashing a spec takes longer than routing a token.
        self._bound: dict[int, tuple[object, Any]] = {}
        self._angles: tuple[RopeAngles, Any] | None = None

    def __call__(self, record: Weight | MLP | MoESpec | Sublayer) -> Any:
        """The core's counterpart of ``record``.

        Raises:
            ValueError: the shapes of its weights do not fit together.
        """
        try:
            return self._bound[id(record)][1]
        except KeyError:
            made = self._make(record)
            self._bound[id(record)] = record, made
            return made

    def angles(self, angles: RopeAngles) -> Any:
        """Cosines and sines, which all layers of a pass share: only the last ones are kept."""
        last = self._angles
        if last is None or last[0] is not angles:
            last = self._angles = angles, self._make(angles)
        return last[1]

    def _make(self, record: object) -> Any:
        return getattr(self._core, type(record).__name__)(record)
