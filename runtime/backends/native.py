"""The ``native`` backend: sprat's forward pass with C++ kernels, which read weights from the mapped file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sprat.arrays import F32Array, I32Array
from sprat.devices.machine import available_bytes
from sprat.devices.plan.footprint import Footprint
from sprat.errors import BackendError, SpratError
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.backends.expert_readahead import ExpertReadahead
from sprat.runtime.backends.model_stream import ModelStream, ModelStreams
from sprat.runtime.backends.registry import BackendLoader, LoadRequest
from sprat.runtime.cache import Storage
from sprat.runtime.kernels.native import NATIVE_FORMATS, NativeKernels, native_missing_because
from sprat.runtime.memory.buffers import activation_bytes, native_buffer_bytes
from sprat.runtime.memory.footprint import cache_bytes_per_token
from sprat.runtime.models import Model, RoutingObserver
from sprat.runtime.weights import WeightSource

__all__ = ["NativeBackend"]


class NativeLoader(BackendLoader, name="native"):
    """The C++ kernels, for files of :data:`~sprat.runtime.kernels.native.NATIVE_FORMATS`."""

    deterministic = True  # kernels divide work by its shape alone
    exact = True
    few_as_one = True

    def footprint(self, request: LoadRequest) -> Footprint:
        """The requested KV cache, and the activations of one chunk."""
        spec = request.spec
        without_cache = request.footprint(
            cache_element_bytes=0,
            buffer_bytes=native_buffer_bytes(spec, request.batch, request.n_threads),
            activation_bytes=activation_bytes(spec),
        )
        return replace(without_cache, cache_bytes_per_token=cache_bytes_per_token(spec, _cache(request)))

    def why_not(self, request: LoadRequest) -> SpratError | None:
        """The native core is not built, or has no kernels for a format of the file."""
        if why := native_missing_because():
            return BackendError(f"the native kernels are missing: {why}")
        formats = {info.type_name for info in request.gguf.tensors.values()}
        if unknown := sorted(formats - NATIVE_FORMATS):
            return BackendError(f"{request.file.path}: no native kernels for {', '.join(unknown)}; requantize the file")
        return None

    def load(self, request: LoadRequest) -> NativeBackend:
        """Weights are read when they are first used."""
        if not request.streams and request.gguf.nbytes < available_bytes():
            request.gguf.ask_for_huge_pages()
        readahead = ExpertReadahead(request.gguf) if request.streams and request.spec.moe else None
        # Not the first: the thread of the caller is not pinned.
        kernels = NativeKernels(request.n_threads, cores=request.cores[1:], exact=request.exact)
        return NativeBackend(request.spec, request.gguf, kernels, readahead, _cache(request))


def _cache(request: LoadRequest) -> Storage:
    return request.cache or ("f32" if request.exact else request.spec.attention.storages[0])


class NativeBackend:
    """A model with C++ kernels.

    Args:
        spec: the architecture.
        weights: its weights, read while the model runs.
        kernels: the kernels and their threads.
        cache: storage of the KV cache; by default the first of the architecture's.
        readahead: prefetches the selected experts, if they are streamed.
    """

    name = "native"
    max_together = 5  # of forward_each: more tokens go through another product, which rounds otherwise

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        kernels: NativeKernels,
        readahead: ExpertReadahead | None = None,
        cache: Storage | None = None,
    ) -> None:
        self._streams = ModelStreams(Model(spec, weights, kernels))
        self.vocab_size = spec.vocab_size
        self.max_context = spec.max_context
        self._readahead = readahead
        self._cache = cache or spec.attention.storages[0]

    def new_stream(self, capacity: int, observe: RoutingObserver | None = None) -> ModelStream:
        """An empty sequence; ``observe`` gets the routing of each MoE layer.

        Raises:
            BackendError: the backend was closed.
        """
        return self._streams.new(capacity, _both(self._readahead, observe), self._cache)

    def forward_each(self, streams: Sequence[ModelStream], tokens: Sequence[int]) -> F32Array:
        """Append one token to each of several streams, in one pass; the logits of each, ``(n, vocab_size)``.

        Every logit has the bits of :meth:`ModelStream.forward` for up to :attr:`max_together` streams.
        """
        return self._streams.forward_each(streams, tokens, self._readahead)

    def close(self) -> None:
        """Free the weights, all streams, the threads, and the descriptors of the readahead."""
        self._streams.close()
        if self._readahead is not None:
            self._readahead.close()


def _both(first: RoutingObserver | None, second: RoutingObserver | None) -> RoutingObserver | None:
    """An observer that calls both; if one is ``None``, the other."""
    if first is None or second is None:
        return first or second

    def observe(layer: int, experts: I32Array) -> None:
        first(layer, experts)
        second(layer, experts)

    return observe
