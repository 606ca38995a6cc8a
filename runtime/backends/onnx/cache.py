"""Binding a KV cache to the inputs and outputs of an ONNX graph: one class per ``CacheUpdate`` (docs/onnx.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.backends.onnx.device_cache import DeviceBinding, DeviceMemory
from sprat.runtime.backends.providers.library import onnxruntime
from sprat.runtime.cache import Cache
from sprat.runtime.files.onnx.file import CacheUpdate, ONNXFile

__all__ = ["CacheBinding", "bind_cache", "ort_value"]


class CacheBinding(Protocol):
    """A cache that is bound to inputs and outputs of a graph."""

    on_device: bool  # the entries are not in ``cache``, which counts them

    @property
    def cache(self) -> Cache:
        """The entries, or their number."""

    def bind(self, io: Any, n: int) -> list[Any]:
        """Bind the entries so far and the buffer for ``n`` new ones; the returned values must outlive the run."""

    def finish(self, n: int) -> None:
        """Copy the ``n`` new entries into the cache, if the run wrote them elsewhere; called before ``advance``."""


def bind_cache(file: ONNXFile, capacity: int, device: DeviceMemory | None = None) -> CacheBinding:
    """An empty cache, bound as the graph needs it, in the CPU's memory or a device's."""
    return _BINDINGS[file.cache](file, capacity) if device is None else DeviceBinding(file, capacity, device)


def ort_value(array: npt.NDArray[Any]) -> Any:
    """``array`` as an ``OrtValue`` over the same memory, which it keeps alive."""
    assert array.flags.c_contiguous, "onnxruntime needs contiguous arrays: it would write to a copy"
    return onnxruntime().OrtValue.ortvalue_from_numpy(array)


class AppendBinding:
    """Latents: the graph reads the first entries of a buffer and writes the next ones, without copies."""

    on_device = False

    def __init__(self, file: ONNXFile, capacity: int) -> None:
        self.cache = _new_cache(file.spec, capacity)
        self._ports = [(port, self.cache.plane(port.plane)[port.layer, 0]) for port in file.ports]

    def bind(self, io: Any, n: int) -> list[Any]:
        """Views of the buffer before and after the current length."""
        start = self.cache.length
        kept: list[Any] = []
        for port, rows in self._ports:
            past, new = ort_value(rows[:start]), ort_value(rows[start : start + n])
            io.bind_ortvalue_input(port.past, past)
            io.bind_ortvalue_output(port.present, new)
            kept += [past, new]
        return kept

    def finish(self, n: int) -> None:
        """Does nothing: the entries are in the cache."""


class SharedBinding:
    """Keys and values: the graph writes new entries into the buffers that it reads, without copies."""

    on_device = False

    def __init__(self, file: ONNXFile, capacity: int) -> None:
        self.cache = _new_cache(file.spec, capacity)
        self._values = [(port, ort_value(self.cache.plane(port.plane)[port.layer][None])) for port in file.ports]

    def bind(self, io: Any, n: int) -> list[Any]:
        """The same memory as input and as output."""
        for port, value in self._values:
            io.bind_ortvalue_input(port.past, value)
            io.bind_ortvalue_output(port.present, value)
        return self._values

    def finish(self, n: int) -> None:
        """Does nothing: the entries are in the cache."""


class ConcatBinding:
    """Keys and values of a graph of standard operators, which returns all entries in a new array."""

    on_device = False

    def __init__(self, file: ONNXFile, capacity: int) -> None:
        self.cache = _new_cache(file.spec, capacity)
        self._ports = list(file.ports)
        self._presents: Mapping[str, npt.NDArray[np.float32]] = {}

    def bind(self, io: Any, n: int) -> list[Any]:
        """Copies of the entries so far, and new arrays for all entries."""
        length = self.cache.length
        kept: list[Any] = []
        self._presents = {}
        for port in self._ports:
            rows = self.cache.plane(port.plane)[port.layer, :, :length]
            present = np.empty((1, rows.shape[0], length + n, rows.shape[2]), np.float32)
            self._presents[port.present] = present
            values = ort_value(np.ascontiguousarray(rows)[None]), ort_value(present)
            io.bind_ortvalue_input(port.past, values[0])
            io.bind_ortvalue_output(port.present, values[1])
            kept += values
        return kept

    def finish(self, n: int) -> None:
        """Copy the new entries to the cache."""
        length = self.cache.length
        for port in self._ports:
            rows = self._presents[port.present][0, :, length:]
            self.cache.plane(port.plane)[port.layer, :, length : length + n] = rows


def _new_cache(spec: ModelSpec, capacity: int) -> Cache:
    return Cache(spec.attention.planes, spec.n_layers, capacity)


_BINDINGS: dict[CacheUpdate, type[AppendBinding | SharedBinding | ConcatBinding]] = {
    CacheUpdate.APPEND: AppendBinding,
    CacheUpdate.SHARED: SharedBinding,
    CacheUpdate.CONCAT: ConcatBinding,
}
