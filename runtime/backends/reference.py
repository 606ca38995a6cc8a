"""The ``reference`` backend: sprat's forward pass in NumPy, which defines the result. Any file, any machine."""

from __future__ import annotations

from sprat.devices.machine import available_bytes
from sprat.devices.plan.footprint import Footprint
from sprat.errors import SpratError
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.backends.model_stream import ModelStream, ModelStreams
from sprat.runtime.backends.registry import BackendLoader, LoadRequest
from sprat.runtime.kernels.reference import PANEL_BYTES, ReferenceKernels
from sprat.runtime.models import Model, RoutingObserver
from sprat.runtime.weights import WeightSource

__all__ = ["ReferenceBackend"]

_CACHE_ELEMENT_BYTES = 4  # float32
_N_ACTIVATIONS = 5  # arrays of the widest activation, in memory together: measured
_N_DEQUANTIZED = 1.5  # a panel of dequantized rows, and NumPy's copies while it is made: measured
_N_SCORES = 3  # a panel of scores, their exponentials and weights


class ReferenceLoader(BackendLoader, name="reference"):
    """Always available."""

    deterministic = True
    exact = True

    def footprint(self, request: LoadRequest) -> Footprint:
        """A float32 cache and the activations of one chunk; dequantized weights use only the remaining memory."""
        spec, batch = request.spec, request.batch
        widest = max(spec.intermediate_size, spec.hidden_size, spec.attention.q_width)
        token_bytes = _N_ACTIVATIONS * widest * 4
        scores = _N_SCORES * min(PANEL_BYTES, 4 * spec.attention.n_heads * batch * request.context)
        dequantized = int(_N_DEQUANTIZED * min(PANEL_BYTES, 4 * spec.vocab_size * spec.hidden_size))
        buffer_bytes = batch * token_bytes + 2 * spec.vocab_size * 4 + max(scores, dequantized)
        return request.footprint(
            cache_element_bytes=_CACHE_ELEMENT_BYTES, buffer_bytes=buffer_bytes, activation_bytes=token_bytes
        )

    def why_not(self, request: LoadRequest) -> SpratError | None:
        """None."""
        return None

    def load(self, request: LoadRequest) -> ReferenceBackend:
        """Weights are read when they are first used.

        Dequantized copies may use the rest of the memory limit, and half of what cache and buffers leave of the memory
        that is available now: other programs, and other engines of this process, need some as well.
        """
        footprint = self.footprint(request)
        dense_bytes = max(0, available_bytes() - footprint.cache_bytes - footprint.buffer_bytes) // 2
        if request.memory_bytes is not None:
            dense_bytes = min(dense_bytes, request.memory_bytes - footprint.total_bytes)
        return ReferenceBackend(request.spec, request.gguf, dense_bytes=dense_bytes)


class ReferenceBackend:
    """A model in NumPy.

    Args:
        spec: the architecture.
        weights: its weights, read while the model runs.
        dense_bytes: limit on dequantized weights kept in memory.
    """

    name = "reference"

    def __init__(self, spec: ModelSpec, weights: WeightSource, *, dense_bytes: int) -> None:
        self._streams = ModelStreams(Model(spec, weights, ReferenceKernels(dense_bytes)))
        self.vocab_size = spec.vocab_size
        self.max_context = spec.max_context
        self.n_experts = spec.moe.n_routed_experts if spec.moe else 0

    def new_stream(self, capacity: int, observe: RoutingObserver | None = None) -> ModelStream:
        """An empty sequence; ``observe`` gets the routing of each MoE layer.

        Raises:
            BackendError: the backend was closed.
        """
        return self._streams.new(capacity, observe)

    def close(self) -> None:
        """Free the weights, dequantized copies included, and all streams."""
        self._streams.close()
