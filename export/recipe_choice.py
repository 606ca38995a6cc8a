"""Choice of the recipe of an export: the requested one, a GGUF's own formats, or the best that fits the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sprat.devices.plan.choose import choose_quant
from sprat.devices.plan.plan import Plan
from sprat.devices.plan.text import smaller_choice
from sprat.devices.profile import find_profile
from sprat.errors import InputError
from sprat.export.options import ExportOptions
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.tensor import SourceTensor
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.recipe import KEEP, KeptFormats, Recipe
from sprat.runtime.memory.footprint import planned_footprint, planned_recipes

__all__ = ["choose_recipe"]


def choose_recipe(checkpoint: Checkpoint, options: ExportOptions) -> tuple[Recipe, Plan | None, list[str]]:
    """The recipe, with a device the plan for it, and what else could be chosen.

    Raises:
        InputError: the quantization, a rule or the device is unknown, or nothing fits the device.
    """
    recipes = _recipes(checkpoint, options)
    if options.device is None:
        return recipes[0], None, []
    footprints = [planned_footprint(checkpoint.spec, recipe, context=options.context) for recipe in recipes]
    plan = choose_quant(footprints, find_profile(options.device), force=options.force)
    return recipes[plan.index_in(footprints)], plan, list(smaller_choice(plan, footprints))


def _recipes(checkpoint: Checkpoint, options: ExportOptions) -> Sequence[Recipe]:
    """The recipes to choose from, best quality first."""
    quant, rules, formats = options.wanted_quant, options.tensor_rules, list(options.formats)
    if quant is None or quant.lower() != KEEP:
        return planned_recipes(checkpoint.spec, quant, rules)
    if not checkpoint.metadata or formats != ["gguf"]:
        raise InputError(
            f"{checkpoint.path}: --quant keep copies the tensors of a GGUF into a GGUF, found "
            f"{'a GGUF' if checkpoint.metadata else 'a checkpoint'} and --format {','.join(formats)}; "
            "choose a block format such as q8_0 or bf16"
        )
    kept = {name: _kept_format(tensor) for name, tensor in checkpoint.tensors.items()}
    sizes = {name: math.prod(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    return (KeptFormats.of(kept, sizes).with_rules(rules),)


def _kept_format(tensor: SourceTensor) -> BlockFormat:
    """The tensor's format; Q8_0 where rearranging took it out of its blocks (attn_k_b of an old quantized file)."""
    stored = {part.format.name for part in tensor.rows.stored()}
    made = tensor.format.name not in stored and len(tensor.shape) > 1 and tensor.format.name == "F32"
    q8_0 = get_format("Q8_0")
    return q8_0 if made and q8_0.divides(tensor.shape[-1]) else tensor.format
