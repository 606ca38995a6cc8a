"""A KV cache in the memory of a provider's device: outputs of a run stay there and are inputs of the next one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from sprat.runtime.backends.onnx.session import ort_errors
from sprat.runtime.backends.providers.library import onnxruntime
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.cache import Cache
from sprat.runtime.files.onnx.file import CacheUpdate, ONNXFile

__all__ = ["DeviceBinding", "DeviceMemory", "entry_graph"]

_HEADER = '<ir_version: 8, opset_import: ["" : 18]>'  # what onnxruntime 1.22 reads


class DeviceMemory:
    """The memory of a provider's device, and graphs that change entries there; one for all streams of a session.

    Args:
        file: the model.
        provider: one with memory of its own.
    """

    def __init__(self, file: ONNXFile, provider: ProviderSettings) -> None:
        assert provider.memory is not None, "its outputs are arrays of the CPU"
        self.name = provider.memory
        self._file, self._provider = file, provider
        self._session = functools.cache(self._open)

    def run(self, change: str, inputs: Mapping[str, Any]) -> list[Any]:
        """The entries after a change, in the order of ``file.ports``; see :func:`entry_graph`."""
        session = self._session(change)
        io = session.io_binding()
        for name, value in inputs.items():
            io.bind_ortvalue_input(name, value)
        for output in session.get_outputs():
            io.bind_output(output.name, self.name)
        with ort_errors(f"{self._file.path}: {self._provider.name} failed in its KV cache", "load the model again"):
            session.run_with_iobinding(io)
        return list(io.get_outputs())

    def _open(self, change: str) -> Any:
        import onnx

        model = onnx.parser.parse_model(entry_graph(self._file, change)).SerializeToString()
        with ort_errors(f"{self._file.path}: {self._provider.name} has no KV cache", "leave the provider out"):
            return onnxruntime().InferenceSession(model, providers=self._provider.session_providers())


class DeviceBinding:
    """Entries of a layer are an array that grows: a run reads one, and returns a longer one or the new entries.

    Args:
        file: the model.
        capacity: maximum number of tokens.
        device: where the entries are.
    """

    on_device = True

    def __init__(self, file: ONNXFile, capacity: int, device: DeviceMemory) -> None:
        self.cache = Cache((), file.spec.n_layers, capacity)  # without arrays: it counts tokens
        self._ports, self._device = list(file.ports), device
        self._appends = file.cache is CacheUpdate.APPEND
        planes = [file.spec.attention.planes[port.plane] for port in self._ports]
        shapes = [(0, plane.width) if self._appends else (1, plane.n_heads, 0, plane.width) for plane in planes]
        self._empty = [onnxruntime().OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32)) for shape in shapes]
        self._past, self._n_stored = self._empty, 0
        self._io: Any = None

    def bind(self, io: Any, n: int) -> list[Any]:
        """The past as inputs, and outputs on the device."""
        self._drop_truncated()
        self._io = io
        for port, past in zip(self._ports, self._past, strict=True):
            io.bind_ortvalue_input(port.past, past)
            io.bind_output(port.present, self._device.name)
        return self._past

    def finish(self, n: int) -> None:
        """Keep what the run returned; its first outputs are those of :meth:`bind`."""
        presents = list(self._io.get_outputs())[: len(self._ports)]
        self._past = self._device.run("append", _named(past=self._past, new=presents)) if self._appends else presents
        self._n_stored, self._io = self._n_stored + n, None

    def _drop_truncated(self) -> None:
        length = self.cache.length
        if length == 0:
            self._past = self._empty
        elif length < self._n_stored:
            kept = onnxruntime().OrtValue.ortvalue_from_numpy(np.array([length], np.int64))
            self._past = self._device.run("keep", {**_named(past=self._past), "length": kept})
        self._n_stored = length


def _named(**values: list[Any]) -> dict[str, Any]:
    """The inputs of :func:`entry_graph`."""
    return {f"{kind}_{index}": value for kind, each in values.items() for index, value in enumerate(each)}


def entry_graph(file: ONNXFile, change: str) -> str:
    """A graph in ONNX's text format: ``append`` adds the entries ``new_N`` to ``past_N``, ``keep`` keeps the first.

    ``N`` counts ``file.ports``, and ``length`` is the number of tokens to keep.
    """
    appends = file.cache is CacheUpdate.APPEND
    axis = 0 if appends else 2
    inputs, outputs, nodes = [], [], []
    for index, port in enumerate(file.ports):
        plane = file.spec.attention.planes[port.plane]
        shape = f"{{}}, {plane.width}" if appends else f"1, {plane.n_heads}, {{}}, {plane.width}"
        kinds = ("past", "new") if change == "append" else ("past",)
        inputs += [f"float[{shape.format(kind)}] {kind}_{index}" for kind in kinds]
        outputs.append(f"float[{shape.format('total')}] out_{index}")
        node = (
            f"Concat<axis={axis}>(past_{{0}}, new_{{0}})"
            if change == "append"
            else "Slice(past_{0}, zero, length, axis)"
        )
        nodes.append(f"out_{index} = {node.format(index)}")
    if change == "keep":
        inputs.append("int64[1] length")
        nodes[:0] = ["zero = Constant<value_ints=[0]>()", f"axis = Constant<value_ints=[{axis}]>()"]
    return f"{_HEADER} entries ({', '.join(inputs)}) => ({', '.join(outputs)}) {{ {' '.join(nodes)} }}"
