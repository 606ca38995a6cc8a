"""The ``onnx`` backend: graphs exported by sprat (docs/onnx.md), run by onnxruntime on the CPU or with a provider.

The KV cache is sprat's, not onnxruntime's. Each call binds views of it as inputs and outputs; only with
``CacheUpdate.CONCAT`` are entries copied (:class:`~sprat.runtime.files.onnx.file.CacheUpdate`). With a provider whose
device has memory of its own, it is there (:mod:`~sprat.runtime.backends.onnx.device_cache`).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from sprat.arrays import F32Array, I64Array
from sprat.devices.plan.footprint import Footprint
from sprat.errors import BackendError, PromptError, SpratError
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import is_routed_expert
from sprat.runtime.backends.flush_denormals import subnormals_as_zero
from sprat.runtime.backends.library_guard import LibraryGuard
from sprat.runtime.backends.onnx.cache import CacheBinding, bind_cache, ort_value
from sprat.runtime.backends.onnx.device_cache import DeviceMemory
from sprat.runtime.backends.onnx.newer_graph import fastest_graph
from sprat.runtime.backends.onnx.session import EXPORT_AGAIN, open_session, ort_errors, run_session
from sprat.runtime.backends.providers.check import check_provider
from sprat.runtime.backends.providers.device_plan import DevicePlan
from sprat.runtime.backends.providers.free_memory import free_memory
from sprat.runtime.backends.providers.library import missing_because
from sprat.runtime.backends.providers.names import CPU
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.backends.registry import BackendLoader, LoadRequest
from sprat.runtime.cache import Cache
from sprat.runtime.files.onnx.file import CacheUpdate, ONNXFile
from sprat.runtime.models import RoutingObserver

__all__ = ["ONNXBackend", "ONNXStream"]


_CACHE_ELEMENT_BYTES = 4  # float32
_CHUNK, _SMALL_CHUNK = 128, 64  # tokens whose activations are in memory together
_LIBRARY_BYTES = 42 << 20  # onnxruntime itself, onnx, and their threads: measured
_PACKED_BLOCK_BYTES = 10  # two scales and a sum in float32 instead of one float16 scale: measured
_LOW_MEMORY_EXPERT_BLOCK_BYTES = 2  # one float32 scale, with float32 activations: measured


class ONNXLoader(BackendLoader, name="onnx"):
    """Runs ONNX files, if onnxruntime is installed."""

    def footprint(self, request: LoadRequest) -> Footprint:
        """A float32 cache, the activations of one chunk, its attention scores over the context, and packed weights."""
        return _footprint(request, low_memory=_wants_low_memory(request))

    def gives_entries(self, request: LoadRequest) -> bool:
        """Whether KV entries can be copied: not those in a device's memory."""
        return request.provider is None or request.provider.memory is None

    def why_not(self, request: LoadRequest) -> SpratError | None:
        """The reason: onnxruntime is not installed, or the model exceeds the memory of the provider's device."""
        if why := missing_because():
            return BackendError(why)
        planned = None if request.force else _on_device(request)
        return planned.refusal(request.file.path) if planned else None

    def on_device(self, request: LoadRequest) -> str:
        """The plan for the provider's device."""
        planned = _on_device(request)
        return planned.text() if planned else ""

    def isolated_request(self, request: LoadRequest) -> LoadRequest:
        """The same, once its provider was tried in a child process.

        Raises:
            BackendError: the provider rejects the model, is missing, or computes something else.
        """
        assert isinstance(request.file, ONNXFile)
        if request.provider is not None:
            check_provider(request.file, request.provider)
        return request

    def load(self, request: LoadRequest) -> ONNXBackend:
        """Load the weights; onnxruntime packs matrices for this CPU. A provider is tried in a child process first.

        Raises:
            BackendError: onnxruntime rejects the model; or the provider does, is missing, or computes something else.
        """
        assert isinstance(request.file, ONNXFile)
        if not request.isolated:
            self.isolated_request(request)
        return ONNXBackend(
            request.file if request.provider else fastest_graph(request.file),
            n_threads=request.n_threads,
            low_memory=_wants_low_memory(request),
            provider=request.provider,
        )


def _wants_low_memory(request: LoadRequest) -> bool:
    """Whether the model fits into the limit only with float32 expert products and short chunks, on the CPU."""
    if request.memory_bytes is None or request.provider is not None:
        return False
    return _footprint(request, low_memory=False).total_bytes > request.memory_bytes


def _token_bytes(spec: ModelSpec) -> int:
    """Activations and logits of a token of a chunk."""
    widest = max(spec.intermediate_size, spec.hidden_size, spec.attention.q_width)
    return 8 * widest * 4 + spec.vocab_size * 4


def _scores_bytes(spec: ModelSpec) -> int:
    """Attention scores of a token of a chunk, for one KV entry."""
    return 3 * 4 * spec.attention.n_heads


def _footprint(request: LoadRequest, *, low_memory: bool) -> Footprint:
    spec = request.spec
    chunk_bytes = _chunk(low_memory) * (_token_bytes(spec) + request.context * _scores_bytes(spec))
    buffer_bytes = chunk_bytes + _packing_bytes(request, low_memory=low_memory) + _LIBRARY_BYTES
    return request.footprint(cache_element_bytes=_CACHE_ELEMENT_BYTES, buffer_bytes=buffer_bytes)


def _on_device(request: LoadRequest) -> DevicePlan | None:
    """Memory plan of the provider's device; ``None`` where it has no memory of its own."""
    if request.provider is None or request.provider.memory is None:
        return None
    on_cpu = _footprint(request, low_memory=False)
    return DevicePlan(
        provider=request.provider.name,
        weight_bytes=on_cpu.weight_bytes,
        entry_bytes=on_cpu.cache_bytes_per_token,
        scores_bytes=_CHUNK * _scores_bytes(request.spec),
        pass_bytes=_CHUNK * _token_bytes(request.spec),
        context=request.context,
        free=free_memory(request.provider, request.accelerator),
    )


def _chunk(low_memory: bool) -> int:
    return _SMALL_CHUNK if low_memory else _CHUNK


def _packing_bytes(request: LoadRequest, *, low_memory: bool) -> int:
    """Bytes of packed weights beyond those of the file: ``MatMulNBits`` in ``.blocks``, ``QMoE`` in stacked rows."""
    blocks: dict[bool, int] = {True: 0, False: 0}  # of routed experts, of the rest
    for name, info in request.file.tensors.items():
        if ".weight.blocks" in name:
            blocks[is_routed_expert(name)] += math.prod(info.shape[:-1])
        elif name.endswith(".weight.scales") and is_routed_expert(name):  # a stack, of QMoE
            blocks[True] += math.prod(info.shape)
    routed, others = blocks[True], blocks[False]
    expert_block_bytes = _LOW_MEMORY_EXPERT_BLOCK_BYTES if low_memory else _PACKED_BLOCK_BYTES
    return _PACKED_BLOCK_BYTES * others + expert_block_bytes * routed


class ONNXBackend:
    """A model in onnxruntime.

    Args:
        file: a checked model.
        n_threads: number of threads.
        low_memory: less memory, lower speed: short chunks, and the arena and ``small_experts`` of
            :func:`~sprat.runtime.backends.onnx.session.open_session`.
        provider: what computes besides the CPU; by default nothing.
    """

    name = "onnx"

    def __init__(
        self, file: ONNXFile, *, n_threads: int, low_memory: bool = False, provider: ProviderSettings | None = None
    ) -> None:
        self.low_memory = low_memory
        self._file, self._chunk = file, _chunk(low_memory)
        arena = low_memory or file.cache is CacheUpdate.APPEND
        self._guard = LibraryGuard("onnxruntime", file.files())
        self._session = open_session(
            file.path, n_threads=n_threads, arena=arena, small_experts=low_memory, provider=provider
        )
        self._device = DeviceMemory(file, provider) if provider and provider.memory else None
        self._guard.check_files()
        self._streams: weakref.WeakSet[ONNXStream] = weakref.WeakSet()
        self.vocab_size = file.spec.vocab_size
        self.max_context = file.spec.max_context

    def new_stream(self, capacity: int, observe: RoutingObserver | None = None) -> ONNXStream:
        """An empty sequence; the graph does not report its routing, so ``observe`` is ignored.

        Raises:
            BackendError: the backend was closed.
        """
        if self._session is None:
            raise BackendError("the engine was closed; load the model again")
        stream = ONNXStream(self._session, self._file, capacity, self._guard, chunk=self._chunk, device=self._device)
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """Free the weights and all streams; a run of another thread ends first."""
        self._session = self._device = None
        for stream in list(self._streams):
            stream.close()


class ONNXStream:
    """One sequence: an onnxruntime session and a KV cache.

    Args:
        session: an ``InferenceSession``.
        file: the model that it runs.
        capacity: maximum number of tokens.
        guard: of the files and threads of the session.
        chunk: maximum number of tokens in one run of the graph.
        device: where the cache is; by default in the CPU's memory.
    """

    def __init__(
        self,
        session: Any,
        file: ONNXFile,
        capacity: int,
        guard: LibraryGuard,
        *,
        chunk: int = _CHUNK,
        device: DeviceMemory | None = None,
    ) -> None:
        self._open: tuple[Any, CacheBinding] | None = (session, bind_cache(file, capacity, device))
        self._file, self._chunk, self._capacity = file, chunk, capacity
        self._guard = guard
        self._of_provider = device is not None or session.get_providers()[0] != CPU
        self._remedy = "leave the provider out" if self._of_provider else EXPORT_AGAIN
        self._ones = np.ones((1, capacity), np.int64)

    @property
    def length(self) -> int:
        """Tokens in the cache; 0 once it is closed."""
        return self._open[1].cache.length if self._open else 0

    @property
    def capacity(self) -> int:
        """Maximum number of tokens."""
        return self._capacity

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``."""
        *parts, last = self._chunks(tokens)
        for part in parts:
            self._run(part, n_logits=1)
        return self._run(last, n_logits=1).ravel()

    def forward_all(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after each, ``(n, vocab_size)``."""
        return np.concatenate([self._run(part, n_logits=len(part)) for part in self._chunks(tokens)])

    def truncate(self, length: int) -> None:
        """Remove every token from position ``length`` on."""
        self._opened()[1].cache.truncate(length)

    @property
    def cache(self) -> Cache | None:
        """The KV cache; ``None`` on a device, and once it is closed."""
        return self._open[1].cache if self._open and not self._open[1].on_device else None

    def close(self) -> None:
        """Release the session and free the cache."""
        self._open = None

    def _opened(self) -> tuple[Any, CacheBinding]:
        """The session and the cache.

        Raises:
            BackendError: the stream was closed.
        """
        if self._open is None:
            raise BackendError("the engine or the session was closed; load the model again")
        return self._open

    def _chunks(self, tokens: Sequence[int]) -> list[I64Array]:
        """Split the tokens into chunks, after checking that all of them fit into the cache."""
        ids = np.asarray(tokens, np.int64)
        if not ids.size or ids.min() < 0 or ids.max() >= self._file.spec.vocab_size:
            raise PromptError(f"expected at least one token id, each of 0 to {self._file.spec.vocab_size - 1}")
        self._opened()[1].cache.reserve(len(ids))
        return [ids[start : start + self._chunk] for start in range(0, len(ids), self._chunk)]

    def _run(self, tokens: I64Array, *, n_logits: int) -> F32Array:
        """Run the graph once: logits ``(n_logits, vocab_size)``."""
        session, binding = self._opened()
        self._guard.check_process()
        n, cache = len(tokens), binding.cache
        n_rows = n_logits if "n_logits" in self._file.inputs else n
        logits = None if self._of_provider else np.empty((1, n_rows, self._file.spec.vocab_size), np.float32)
        with ort_errors(f"{self._file.path}: onnxruntime failed at position {cache.length}", self._remedy):
            io = session.io_binding()
            kept = [*self._bind_tokens(io, tokens, n_logits, cache.length + n), *binding.bind(io, n)]
            if logits is None:
                io.bind_output("logits", "cpu")
            else:
                kept.append(ort_value(logits))
                io.bind_ortvalue_output("logits", kept[-1])
            with subnormals_as_zero():
                run_session(session, io)
            if logits is None:
                logits = io.get_outputs()[-1].numpy()  # OpenVINO ignores n_logits and returns all rows
        self._guard.check_files()
        binding.finish(n)
        cache.advance(n)
        rows: F32Array = logits[0, -n_logits:]
        return rows

    def _bind_tokens(self, io: Any, tokens: I64Array, n_logits: int, total: int) -> list[Any]:
        """Bind the inputs besides the cache; a graph has only those that it uses."""
        feeds = {
            "input_ids": tokens[None],
            "attention_mask": self._ones[:, :total],
            "n_logits": np.array([n_logits], np.int64),
        }
        values = {name: ort_value(array) for name, array in feeds.items() if name in self._file.inputs}
        for name, value in values.items():
            io.bind_ortvalue_input(name, value)
        return list(values.values())
