"""The C++ objects of weights and sublayers, each created once and reused for every token."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.kernels.layers import MLP, Sublayer
from sprat.runtime.weights import Weight

__all__ = ["Bindings"]


class Bindings:
    """Objects of :mod:`sprat._core` by the Python records they are created from; can be shared between threads.

    The core has a class of the same name for each record, and reads the record's attributes by name.

    Args:
        core: the native core.
    """

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        # By id; the record is kept, so that its id is not reused. Hashing a spec takes longer than routing a token.
        self._bound: dict[int, tuple[object, Any]] = {}
        self._angles: tuple[RopeAngles, Any] | None = None

    def __call__(self, record: Weight | MLP | MoESpec | Sublayer) -> Any:
        """The core's object for ``record``.

        Raises:
            ValueError: the shapes of its weights do not fit together.
        """
        try:
            return self._bound[id(record)][1]
        except KeyError:
            bound = self._create(record)
            self._bound[id(record)] = record, bound
            return bound

    def angles(self, angles: RopeAngles) -> Any:
        """The core's object for RoPE angles; only the last is kept, since all layers of a pass share it."""
        last = self._angles
        if last is None or last[0] is not angles:
            last = self._angles = angles, self._create(angles)
        return last[1]

    def _create(self, record: object) -> Any:
        return getattr(self._core, type(record).__name__)(record)
