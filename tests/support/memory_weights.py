"""A ``WeightSource`` over arrays in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sprat.errors import CheckpointError
from sprat.quant.formats import get_format
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.weights import Weight


class MemoryWeights:
    """Arrays by canonical name, in one block format if it divides their rows, else in F32."""

    def __init__(self, arrays: dict[str, np.ndarray], format_name: str = "F32") -> None:
        self.arrays = arrays
        self._format = get_format(format_name)

    @classmethod
    def shaped_like(cls, spec: ModelSpec) -> MemoryWeights:
        """Zeros that take no memory, for code that reads only names and shapes."""
        zero = np.zeros((), np.float32)
        return cls({name: np.broadcast_to(zero, shape) for name, shape in expected_tensors(spec).items()})

    @classmethod
    def random(cls, spec: ModelSpec, format_name: str = "F32", seed: int = 0) -> MemoryWeights:
        """A model whose activations stay near 1."""
        rng = np.random.default_rng(seed)
        scale = {name: shape[-1] ** -0.5 if len(shape) > 1 else 1.0 for name, shape in expected_tensors(spec).items()}
        shapes = expected_tensors(spec).items()
        return cls({n: (rng.normal(size=s) * scale[n]).astype(np.float32) for n, s in shapes}, format_name)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.arrays.items()}

    def names(self) -> Iterable[str]:
        return self.arrays.keys()

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def check_unchanged(self) -> None:
        """Memory is not a file."""

    def weight(self, name: str) -> Weight:
        if name not in self.arrays:
            raise CheckpointError(f"memory: there is no {name}")
        array = self.arrays[name]
        if array.base is not None and not any(array.strides):  # shaped_like: there is no memory to read
            return Weight(name, get_format("F32"), array.shape, np.broadcast_to(np.uint8(0), (*array.shape[:-1], 4)))
        stored = self._format if array.ndim > 1 and self._format.divides(array.shape[-1]) else get_format("F32")
        return Weight(name, stored, array.shape, stored.quantize(array))
