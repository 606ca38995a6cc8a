"""The ``reference`` backend: sprat's own models over NumPy kernels. Any supported file, any machine; the oracle."""

from __future__ import annotations

from sprat.devices.machine import available_bytes
from sprat.devices.plan.footprint import Footprint
from sprat.errors import SpratError
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.backends.model_stream import ModelStream
from sprat.runtime.backends.registry import BackendLoader, LoadRequest
from sprat.runtime.kernels.reference import PANEL_BYTES, ReferenceKernels
from sprat.runtime.models import Model, RoutingObserver
from sprat.runtime.weights import WeightSource

__all__ = ["ReferenceBackend"]

_CACHE_NUMBER_BYTES = 4  # float32
_CHUNK = 256  # tokens whose activations are in memory at once
_N_PANELS = 6  # scores, their exponentials and sums, unpacked rows, and NumPy's copies of them


class ReferenceLoader(BackendLoader, name="reference", preference=20):
    """NumPy is always there."""

    deterministic = True
    exact = True

    def footprint(self, request: LoadRequest) -> Footprint:
        """A float32 cache, and one chunk's activations; unpacked weights only take what is left."""
        spec = request.spec
        widest = max(spec.intermediate_size, spec.hidden_size, spec.attention.q_width)
        panel_bytes = min(PANEL_BYTES, 4 * spec.attention.n_heads * _CHUNK * request.context)
        buffer_bytes = 8 * _CHUNK * widest * 4 + 2 * spec.vocab_size * 4 + _N_PANELS * panel_bytes
        return request.footprint(cache_number_bytes=_CACHE_NUMBER_BYTES, buffer_bytes=buffer_bytes)

    def why_not(self, request: LoadRequest) -> SpratError | None:
        """None: there is always NumPy."""
        return None

    def load(self, request: LoadRequest) -> ReferenceBackend:
        """Nothing is read before it is used; what the budget leaves may hold unpacked weights."""
        if request.memory_bytes is None:
            dense_bytes = available_bytes() // 2
        else:
            dense_bytes = request.memory_bytes - self.footprint(request).total_bytes
        return ReferenceBackend(request.spec, request.gguf, dense_bytes=dense_bytes)


class ReferenceBackend:
    """A model in NumPy.

    Args:
        spec: the architecture.
        weights: where its weights lie; they are read while the model runs.
        dense_bytes: bytes of unpacked weights that may stay in memory.
    """

    name = "reference"

    def __init__(self, spec: ModelSpec, weights: WeightSource, *, dense_bytes: int) -> None:
        self._model = Model(spec, weights, ReferenceKernels(dense_bytes))
        self.vocab_size = spec.vocab_size
        self.max_context = spec.max_context

    def new_stream(self, capacity: int, observe: RoutingObserver | None = None) -> ModelStream:
        """An empty sequence; ``observe`` gets the routing of each MoE layer."""
        return ModelStream(self._model, capacity, observe)

    def close(self) -> None:
        """Nothing to free: memory goes with the last reference."""
