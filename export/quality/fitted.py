"""A mix of formats that stays in a device's memory, by packaged costs, before any weight is read."""

from __future__ import annotations

import dataclasses
from functools import partial

from sprat.devices.plan.plan import Plan
from sprat.errors import InputError
from sprat.export.quality.budget import Tensors, allocate_bytes
from sprat.export.quality.costs import packaged_cost
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.memory.footprint import planned_footprint

__all__ = ["MIX", "fitted_mix"]

MIX = "mix"
"""Name of the quantization in a plan."""


def fitted_mix(spec: ModelSpec, recipe: Recipe, plan: Plan) -> Plan | None:
    """The plan for the best mix that stays in the memory that ``plan`` exceeds; ``None`` if there is none.

    Args:
        spec: the model.
        recipe: the one of ``plan``: its rules keep their tensors.
        plan: a plan that does not fit, or only with experts streamed.
    """
    footprint = plan.footprint
    tensors = Tensors.of(expected_tensors(spec), recipe)
    try:
        found = allocate_bytes(tensors, partial(packaged_cost, spec), footprint.weight_bytes + plan.spare_bytes)
    except InputError:  # the smallest formats are too large
        return None
    mixed = planned_footprint(spec, found.recipe(MIX, tensors), context=footprint.context).of_batch(footprint.batch)
    fitted = dataclasses.replace(plan, footprint=mixed)
    return fitted if fitted.fits else None
