"""Speed as part of the objective: formats that a device's kernels run fast, where they cost little more."""

from __future__ import annotations

import math
from collections.abc import Callable

from sprat.devices.plan.format_speed import FormatSpeed
from sprat.devices.profile import find_profile
from sprat.export.quality.budget import Allocation, Cost, Tensors, allocate_target, tensor_bytes
from sprat.export.quality.options import QualityOptions
from sprat.quant.formats import BlockFormat
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import is_routed_expert

__all__ = ["allocate_for"]

_TINY = 1e-30


def allocate_for(
    spec: ModelSpec,
    tensors: Tensors,
    cost: Cost,
    recipe: Recipe,
    options: QualityOptions,
    file_size: Callable[[Allocation], int],
) -> Allocation:
    """The formats with the least divergence in the wanted bytes, or with the least sum of divergence and time.

    Both are relative to those of the file with the least divergence, and the time has the weight that was asked for.
    The sum over tensors stays a sum, so that the knapsack stays exact.

    Args:
        spec: the architecture.
        tensors: shapes and choices.
        cost: the divergence of a tensor in a format.
        recipe: whose bytes the file takes, if no size is wanted.
        options: size, weight of the speed, and device.
        file_size: bytes of the file under an allocation.

    Raises:
        InputError: the smallest formats exceed the size.
    """
    best = allocate_target(tensors, cost, recipe, options.target, file_size)
    if not options.speed_weight or options.device is None:
        return best
    device = FormatSpeed.of(find_profile(options.device))

    def seconds(name: str, format: BlockFormat) -> float:
        return _seconds(device, spec, name, tensors.shapes[name], format)

    all_time = sum(seconds(name, best.formats[name]) for name in tensors.choices)

    def combined(name: str, format: BlockFormat) -> float:
        share = options.speed_weight * seconds(name, format) / max(all_time, _TINY)
        return cost(name, format) / max(best.cost, _TINY) + share

    found = allocate_target(tensors, combined, recipe, options.target, file_size)
    return Allocation(found.formats, sum(cost(name, found.formats[name]) for name in tensors.choices))


def _seconds(device: FormatSpeed, spec: ModelSpec, name: str, shape: tuple[int, ...], format: BlockFormat) -> float:
    share = _share(spec, name)
    return device.seconds(share * math.prod(shape), share * tensor_bytes(shape, format), format.name)


def _share(spec: ModelSpec, name: str) -> float:
    """Share of a tensor that is read per token."""
    if name == "token_embd.weight":
        return 1.0 if spec.tied_embeddings else 0.0
    if is_routed_expert(name) and spec.moe is not None:
        return spec.moe.n_experts_per_token / spec.moe.n_routed_experts
    return 1.0
