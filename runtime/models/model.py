"""What every model is: embeddings, layers, a norm, logits. A family's file says what a layer does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from sprat.arrays import F32Array, I32Array
from sprat.errors import CheckpointError, PromptError
from sprat.runtime.arch.rope import RopeAngles, RopeTable
from sprat.runtime.arch.spec import Architecture, ModelSpec
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors
from sprat.runtime.cache import Cache, Storage
from sprat.runtime.kernels import MLP, GatedMLP, Head, Kernels
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["LayerWeights", "Model", "RoutingObserver", "gated_mlp", "model_class"]

RoutingObserver = Callable[[int, I32Array], None]
"""Called with a layer's number and the experts ``(n, n_experts_per_token)`` that its tokens chose."""

_FAMILIES: dict[Architecture, type[Model]] = {}


def model_class(architecture: Architecture) -> type[Model]:
    """The family registered for ``architecture``."""
    return _FAMILIES[architecture]


class LayerWeights:
    """The weights of one layer under their short names."""

    def __init__(self, weights: WeightSource, layer: int) -> None:
        self._weights = weights
        self._prefix = f"blk.{layer}."

    def matrix(self, name: str) -> Weight:
        """A packed weight, as it lies in its file."""
        return self._weights.weight(f"{self._prefix}{name}.weight")

    def gain(self, name: str) -> F32Array:
        """A norm's gain, unpacked."""
        return self.matrix(name).dequantize()

    def bias(self, name: str) -> F32Array:
        """A bias, unpacked."""
        return self._weights.weight(f"{self._prefix}{name}.bias").dequantize()

    def mlp(self, suffix: str = "") -> MLP:
        """The MLP whose names end so: ``""``, ``"_exps"``, ``"_shexp"``."""
        return MLP(*(self.matrix(f"ffn_{part}{suffix}") for part in ("gate", "up", "down")))


def gated_mlp(spec: ModelSpec, weights: LayerWeights) -> GatedMLP:
    """A layer's dense MLP."""
    return GatedMLP(norm=weights.gain("ffn_norm"), mlp=weights.mlp(), eps=spec.rms_norm_eps)


class Model(ABC):
    """A forward pass over weights that stay where they are.

    Attributes:
        spec: the architecture in numbers.
        kernels: the arithmetic.
    """

    architecture: ClassVar[Architecture]

    def __init_subclass__(cls, *, architecture: Architecture) -> None:
        super().__init_subclass__()
        assert architecture not in _FAMILIES, (
            f"{cls.__name__}: {architecture} is taken by {_FAMILIES[architecture].__name__}"
        )
        cls.architecture = architecture
        _FAMILIES[architecture] = cls

    def __init__(self, spec: ModelSpec, weights: WeightSource, kernels: Kernels) -> None:
        _check_tensors(spec, weights)
        self.spec = spec
        self.kernels = kernels
        self._rope = RopeTable(spec.rope)
        self._embedding = weights.weight("token_embd.weight")
        self._head = Head(
            norm=weights.weight("output_norm.weight").dequantize(),
            output=self._embedding if spec.tied_embeddings else weights.weight("output.weight"),
            eps=spec.rms_norm_eps,
        )
        self._load_layers([LayerWeights(weights, layer) for layer in range(spec.n_layers)])

    @abstractmethod
    def new_cache(self, capacity: int, storage: Storage = "f32") -> Cache:
        """An empty cache for ``capacity`` tokens."""

    @abstractmethod
    def _load_layers(self, layers: Sequence[LayerWeights]) -> None:
        """Take the weights of every layer."""

    @abstractmethod
    def _run_layers(self, x: F32Array, angles: RopeAngles, cache: Cache, observe: RoutingObserver | None) -> None:
        """Add all layers to the hidden states ``x (n, hidden)``; each appends its rows to ``cache``."""

    def forward(
        self,
        tokens: I32Array | Sequence[int],
        cache: Cache,
        *,
        all_logits: bool = False,
        observe: RoutingObserver | None = None,
    ) -> F32Array:
        """Append ``tokens`` to ``cache`` and predict what follows.

        Args:
            tokens: ``(n,)`` token ids, at least one.
            cache: of this model's :meth:`new_cache`; unchanged when an error is raised.
            all_logits: logits after every token instead of only after the last.
            observe: called once per mixture layer with the experts chosen.

        Returns:
            Logits ``(n, vocab_size)`` with ``all_logits``, else ``(1, vocab_size)``.

        Raises:
            PromptError: no tokens, a token id outside the vocabulary, or no room in the cache.
        """
        ids = self._check(tokens)
        cache.reserve(len(ids))
        x = self.kernels.embed(self._embedding, ids)
        self._run_layers(x, self._rope.angles(cache.length, len(ids)), cache, observe)
        cache.advance(len(ids))
        return self.kernels.logits(x if all_logits else x[-1:], self._head)

    def _check(self, tokens: I32Array | Sequence[int]) -> I32Array:
        ids = np.asarray(tokens)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise PromptError(f"tokens are {ids.dtype} of shape {ids.shape}; expected at least one token id in a row")
        for token in (ids.min(), ids.max()) if ids.size > 1 else ids.tolist():
            if not 0 <= token < self.spec.vocab_size:
                raise PromptError(
                    f"token id {token} is outside the vocabulary of {self.spec.vocab_size} tokens: "
                    "the prompt was encoded with another model's tokenizer"
                )
        return ids.astype(np.int32)


def _check_tensors(spec: ModelSpec, weights: WeightSource) -> None:
    """Every tensor of ``spec`` is there, with its shape, and no other: one that is not read is mathematics left out.

    Raises:
        CheckpointError: all that are missing, misshapen or surplus, in one message.
    """
    expected = expected_tensors(spec)
    problems = [
        f"{name} is surplus" for name in weights.names() if name not in expected and not _is_predictor(name, spec)
    ]
    for name, shape in expected.items():
        if name == ROPE_FREQS:  # the spec holds its numbers
            continue
        if name not in weights:
            problems.append(f"{name} is missing")
        elif (found := weights.weight(name).shape) != shape:
            problems.append(f"{name} has shape {found}, expected {shape}")
    if problems:
        raise CheckpointError(f"{len(problems)} tensors do not make a {spec.architecture} model: {'; '.join(problems)}")


def _is_predictor(name: str, spec: ModelSpec) -> bool:
    """Whether a tensor belongs to V3's multi-token prediction: layers behind the last one, which are skipped."""
    layer = name.removeprefix("blk.").partition(".")[0]
    return layer.isdecimal() and int(layer) >= spec.n_layers
