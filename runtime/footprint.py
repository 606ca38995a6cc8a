"""What a model would weigh in a quantization that nobody made yet: bytes from its spec and a recipe alone."""

from __future__ import annotations

import math

from sprat.devices.footprint import Footprint
from sprat.quant.recipe import Recipe
from sprat.runtime.spec import ModelSpec
from sprat.runtime.tensors import expected_tensors

__all__ = ["DEFAULT_CONTEXT", "planned_footprint"]

DEFAULT_CONTEXT = 4096  # tokens; many models were made for 163,840, whose cache no small device holds

_CACHE_NUMBER_BYTES = 2  # f16
_PREFILL_TOKENS = 512  # whose logits and activations are in memory at once
_PROGRAM_BYTES = 128 << 20  # interpreter, libraries, tokenizer


def planned_footprint(spec: ModelSpec, recipe: Recipe, *, context: int | None = None) -> Footprint:
    """The footprint of ``spec`` quantized by ``recipe``, with a cache in f16.

    Args:
        spec: the model.
        recipe: how it will be quantized.
        context: tokens; the model's own limit, at most :data:`DEFAULT_CONTEXT`, unless given.
    """
    sizes = {name: _tensor_bytes(recipe, name, shape) for name, shape in expected_tensors(spec).items()}
    routed_bytes = sum(size for name, size in sizes.items() if "_exps." in name)
    return Footprint(
        quant=recipe.name,
        resident_bytes=sum(sizes.values()) - routed_bytes,
        routed_bytes=routed_bytes,
        cache_bytes_per_token=_CACHE_NUMBER_BYTES * spec.cache_numbers_per_token,
        context=min(context or DEFAULT_CONTEXT, spec.max_context),
        buffer_bytes=_PROGRAM_BYTES + 4 * _PREFILL_TOKENS * (spec.vocab_size + 4 * spec.hidden_size),
    )


def _tensor_bytes(recipe: Recipe, name: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1]) * recipe.choose(name, shape).format.row_bytes(shape[-1])
