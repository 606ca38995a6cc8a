"""The forward pass of every architecture: embeddings, layers, final norm, logits."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from sprat.arrays import F32Array, I32Array
from sprat.errors import CheckpointError, PromptError
from sprat.runtime.arch.rope import RopeTable
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import ROPE_FREQS
from sprat.runtime.cache import Cache, Storage
from sprat.runtime.files.shape_checks import compare_with_spec
from sprat.runtime.kernels import Head, Kernels, MLAForm
from sprat.runtime.models.attention import new_cache
from sprat.runtime.models.block import Block, RoutingObserver
from sprat.runtime.models.layer_weights import LayerWeights
from sprat.runtime.weights import WeightSource

__all__ = ["MIN_TOKENS_TOGETHER", "Model"]

MIN_TOKENS_TOGETHER = 6
"""Fewer tokens of a native pass have the bits of one at a time (kMinTokensTogether, kMinGemmTokens)."""

_NO_WARNINGS = contextlib.nullcontext()


class Model:
    """A model's layers over one kernel implementation; matrices stay packed in the file, norms and biases are loaded.

    Args:
        spec: the dimensions.
        weights: every tensor of :func:`~sprat.runtime.arch.tensors.expected_tensors`.
        kernels: kernel implementation.

    Attributes:
        form: expanded or absorbed MLA; ``None`` for the cheaper one in each pass.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """

    form: MLAForm | None = None

    def __init__(self, spec: ModelSpec, weights: WeightSource, kernels: Kernels) -> None:
        _check_tensors(spec, weights)
        self.spec = spec
        self.kernels = kernels
        self._in_numpy = kernels.in_numpy
        self._weights = weights
        self._rope = RopeTable(spec.rope)
        self._embedding = weights.weight("token_embd.weight")
        self._head = Head(
            norm=weights.weight("output_norm.weight").dequantize(),
            output=self._embedding if spec.tied_embeddings else weights.weight("output.weight"),
            eps=spec.rms_norm_eps,
        )
        self._form_of_few = cast("MLAForm", spec.attention.cheapest(1, spec.max_context).name)
        self._blocks = [Block(spec, LayerWeights(weights, index), index) for index in range(spec.n_layers)]

    def new_cache(self, capacity: int, storage: Storage = "f32") -> Cache:
        """An empty cache for ``capacity`` tokens."""
        return new_cache(self.spec, capacity, storage)

    def forward(
        self,
        tokens: I32Array | Sequence[int],
        cache: Cache,
        *,
        all_logits: bool = False,
        observe: RoutingObserver | None = None,
    ) -> F32Array:
        """Compute the logits after ``tokens``, and append their KV entries to ``cache``.

        Args:
            tokens: ``(n,)`` token ids, at least one.
            cache: from :meth:`new_cache` of this model; its length is unchanged if an error is raised.
            all_logits: return the logits after every token instead of only the last one.
            observe: called for each MoE layer with the routing, before its experts are read.

        Returns:
            Logits ``(n, vocab_size)`` with ``all_logits``, else ``(1, vocab_size)``.

        Raises:
            PromptError: no tokens, a token id outside the vocabulary, or not enough capacity in the cache.
            ModelFileChangedError: the file of the weights changed while it was in use.
            InterruptError: the pass was interrupted; see :mod:`sprat.runtime.interrupt`.
        """
        ids = self._check(tokens)
        with self._warnings_off():
            x = self._run_layers(ids, cache, observe)
            logits = _unmasked(self.kernels.logits(x if all_logits else x[-1:], self._head))
        self._weights.check_unchanged()
        cache.advance(len(ids))
        return logits

    def forward_each(
        self, tokens: I32Array | Sequence[int], caches: Sequence[Cache], *, observe: RoutingObserver | None = None
    ) -> F32Array:
        """Compute the logits after one token of each of several sequences, in one pass over the weights.

        Args:
            tokens: ``(n,)`` token ids, one for each cache.
            caches: of this model, each once; their lengths are unchanged if an error is raised.
            observe: as for :meth:`forward`.

        Returns:
            Logits ``(n, vocab_size)``.

        Raises:
            PromptError, ModelFileChangedError, InterruptError: as :meth:`forward`.
        """
        ids = self._check(tokens)
        assert len(ids) == len(caches), "there is one token for each cache"
        for cache in caches:
            cache.reserve(1)
        angles = self._rope.angles_at([cache.length for cache in caches])
        form = self._form(1, max(cache.length for cache in caches))
        with self._warnings_off():
            x = self.kernels.embed(self._embedding, ids)
            for block in self._blocks:
                block.attend_each(x, angles, caches, self.kernels, form)
                block.feed_forward(x, self.kernels, observe)
            logits = _unmasked(self.kernels.logits(x, self._head))
        self._weights.check_unchanged()
        for cache in caches:
            cache.advance(1)
        return logits

    def hidden_states(self, tokens: I32Array | Sequence[int], cache: Cache) -> F32Array:
        """Like :meth:`forward`, but the hidden states after the final norm: ``(n, hidden_size)``."""
        ids = self._check(tokens)
        with self._warnings_off():
            x = self._run_layers(ids, cache, None)
            normed = self.kernels.rms_norm(x, self._head.norm, self._head.eps)
        self._weights.check_unchanged()
        cache.advance(len(ids))
        return normed

    def _run_layers(self, ids: I32Array, cache: Cache, observe: RoutingObserver | None) -> F32Array:
        """The hidden states after the last layer, ``(n, hidden_size)``; the caller advances the cache."""
        cache.reserve(len(ids))
        angles = self._rope.angles(cache.length, len(ids))
        form = self._form(len(ids), cache.length)
        x = self.kernels.embed(self._embedding, ids)
        for block in self._blocks:
            block(x, angles, cache, self.kernels, form, observe)
        return x

    def _form(self, n_new: int, n_past: int) -> MLAForm:
        """The MLA form with the fewest operations; of a few tokens always that of one, so that they have its bits."""
        if self.form is not None:
            return self.form
        if n_new < MIN_TOKENS_TOGETHER:
            return self._form_of_few
        return cast("MLAForm", self.spec.attention.cheapest(n_new, n_past).name)

    def _warnings_off(self) -> contextlib.AbstractContextManager[object]:
        """NaN and Inf of damaged weights reach the logits, which Sampler checks: NumPy is not to warn of them."""
        return np.errstate(all="ignore") if self._in_numpy else _NO_WARNINGS

    def _check(self, tokens: I32Array | Sequence[int]) -> I32Array:
        ids = np.asarray(tokens)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise PromptError(f"tokens are {ids.dtype} of shape {ids.shape}; expected a list of at least one token id")
        for token in (ids.min(), ids.max()) if ids.size > 1 else ids.tolist():
            if not 0 <= token < self.spec.vocab_size:
                raise PromptError(
                    f"token id {token} is outside the vocabulary of {self.spec.vocab_size} tokens: "
                    "the prompt was encoded with another model's tokenizer"
                )
        return ids.astype(np.int32)


def _unmasked(logits: F32Array) -> F32Array:
    """``logits``, where -inf, which a sampler takes for a masked token, has become NaN."""
    if not math.isfinite(np.vdot(logits, logits)):  # takes half as long as the minimum
        logits[logits == -np.inf] = np.nan
    return logits


def _check_tensors(spec: ModelSpec, weights: WeightSource) -> None:
    """Compare the tensors of ``weights`` with those of ``spec``: a tensor that no layer reads changes the model, too.

    Raises:
        CheckpointError: all that are missing, unexpected or of another shape, in one message.
    """
    shapes = {name: shape for name, shape in weights.shapes.items() if name != ROPE_FREQS}  # the spec has its values
    if problems := compare_with_spec(spec, shapes, optional=(ROPE_FREQS,)):
        raise CheckpointError(f"these are not the tensors of the {spec.architecture} model: {'; '.join(problems)}")
