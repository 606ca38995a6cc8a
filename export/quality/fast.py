"""``--quality fast``: formats by packaged costs, from shapes alone, and a glance at the packaged text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sprat.arrays import I32Array
from sprat.errors import TokenizerError
from sprat.export.calibration import calibration_sequences
from sprat.export.quality.budget import Allocation, Tensors
from sprat.export.quality.costs import packaged_cost
from sprat.export.quality.options import QualityOptions, Target
from sprat.export.quality.speed import allocate_for
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["fast_allocation", "fast_recipe", "glance"]

_SEQUENCES, _TOKENS = 8, 16


def fast_allocation(
    spec: ModelSpec,
    tensors: Tensors,
    recipe: Recipe,
    options: QualityOptions,
    file_size: Callable[[Recipe], int],
) -> Allocation:
    """A format for every tensor, without a look at its weights.

    Args:
        spec: the architecture.
        tensors: shapes and choices.
        recipe: whose bytes the file takes, if no size is wanted.
        options: the size.
        file_size: bytes of the file under a recipe.

    Raises:
        InputError: the smallest formats exceed the size.
    """

    def size(found: Allocation) -> int:
        return file_size(fast_recipe(found, tensors, recipe, options))

    return allocate_for(spec, tensors, partial(packaged_cost, spec), recipe, options, size)


def fast_recipe(allocation: Allocation, tensors: Tensors, recipe: Recipe, options: QualityOptions) -> Recipe:
    """The allocated formats; a file of the bytes of ``int4`` keeps that name, which promises no more than these."""
    keeps_name = recipe.name == "int4" and options.target == Target()
    return allocation.recipe(recipe.name if keeps_name else "fast", tensors).with_rules(map(str, recipe.rules))


def glance(tokenizer: Mapping[str, Any]) -> list[I32Array]:
    """The beginnings of some documents of the packaged text; nothing for a model without a tokenizer.

    128 tokens of eight documents weight the search as well as 512 of four do.
    """
    try:
        return [sequence[:_TOKENS] for sequence in calibration_sequences(tokenizer)[:_SEQUENCES]]
    except TokenizerError:
        return []
