"""The placement of a model on a GPU of this machine, by the memory that is free there now."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sprat.devices.machine import available_bytes
from sprat.devices.parts import Accelerator, Basis, Sourced
from sprat.devices.plan.context_settings import NO_WISHES, PLANNED_CACHES, CacheType, ContextWishes
from sprat.devices.plan.footprint import Footprint, PassCost
from sprat.devices.plan.gpu import placement_problem
from sprat.devices.plan.placement import (
    PlacedModel,
    Placement,
    PlacementProblem,
    best_placement,
    choose_settings,
    price,
    whole_on_card,
)
from sprat.devices.plan.predict import PartTimes, PassTime
from sprat.errors import BackendError, DoesNotFitError
from sprat.runtime.backends.gpu.attention_shape import AttentionShape
from sprat.runtime.backends.gpu.find import GPUDevice, find_gpus
from sprat.runtime.backends.gpu.use import GPUUse
from sprat.runtime.gpu_option import GPUOption
from sprat.text import human_bytes

__all__ = ["assumed_accelerator", "place_on_gpu"]

# Without a device profile; only the order of the placements depends on these.
_CARD_GBPS = 200.0
_MEMORY_GBPS = 30.0
_FAST_SHARED = ("MTL", "CUDA", "Metal")  # Apple's and NVIDIA's: the CPU cannot saturate the bus that they share
_FREE_SHARE, _MOST_MARGIN = 0.9, 300 << 20  # of the free memory, what the driver itself may still take


def place_on_gpu(
    option: GPUOption,
    footprint: Footprint,
    shape: AttentionShape,
    *,
    accelerator: Accelerator | None = None,
    memory_bytes: int | None = None,
    wishes: ContextWishes = NO_WISHES,
    caches: Sequence[CacheType] = PLANNED_CACHES,
) -> GPUUse:
    """The fastest placement of a file on the GPU with the most free memory, or the one that the caller wants.

    Args:
        option: what the caller wants.
        footprint: of the file, with the bytes of its layers.
        shape: of its attention.
        accelerator: of the device's profile; without one its rates are assumed.
        memory_bytes: RAM that the model may use; by default what is available.
        wishes: settings of the context that are given; the others are chosen with the placement.
        caches: storages of the KV cache to choose from, the best first.

    Raises:
        BackendError: there is no GPU, it lacks what is wished, or the CPU is predicted to be faster.
        DoesNotFitError: what should be on the card does not fit there, or the rest not into memory.
    """
    device = _most_free(shape)
    if option.falls_back and accelerator is not None and accelerator.keep_off:
        raise BackendError(f"{accelerator.name} is better kept off: {accelerator.keep_off}")
    free_bytes = device.free_bytes - min(int((1 - _FREE_SHARE) * device.free_bytes), _MOST_MARGIN)
    card_bytes = min(free_bytes, option.card_bytes or free_bytes)
    problems = [
        placement_problem(
            accelerator or assumed_accelerator(device, option),
            footprint,
            _assumed_times(footprint),
            memory_bytes or available_bytes(),
            card_bytes=card_bytes,
            settings=settings,
        )
        for settings in wishes.to_try(caches, device.flash_attention)
    ]
    if not problems:
        raise BackendError(
            f"{device.name} ({device.description}) has no flash attention for this model's {wishes.cache} cache, "
            "without which llama.cpp stores no integers; use cache='f16' or gpu='off'"
        )
    if accelerator is None:
        problems = [msgspec.structs.replace(problem, hand_over_s=0.0, logits_s=0.0) for problem in problems]
    return _use(device, _placed(option, problems, device), footprint)


def assumed_accelerator(device: GPUDevice, option: GPUOption) -> Accelerator:
    """A GPU of unknown rates: a card is faster than the CPU; one that shares its memory only where that is known."""
    is_slow = device.integrated and option.falls_back and not device.name.startswith(_FAST_SHARED)
    return Accelerator(
        name=device.description,
        api=device.name,
        memory_bytes=_assumed(max(device.total_bytes, 1)),
        peak_gbps=_assumed(_MEMORY_GBPS if is_slow else _CARD_GBPS),
        shared_memory=device.integrated,
        layer_us=_assumed(1e-6),  # unknown: the bytes decide
    )


def _assumed(value: float) -> Sourced:
    return Sourced(value=value, basis=Basis.ASSUMED, source="not known")


def _most_free(shape: AttentionShape) -> GPUDevice:
    found = find_gpus(shape)
    if not found:
        raise BackendError(
            "this llama-cpp-python finds no GPU: it is built for the CPU, or the driver is missing; sprat doctor has "
            "the line that installs a build for a GPU"
        )
    return max(found, key=lambda device: device.free_bytes)


def _assumed_times(footprint: Footprint) -> PartTimes:
    cost = footprint.pass_cost
    assert cost is not None, "a file's footprint has the cost of a pass"

    def reading(n_bytes: float) -> PassTime:
        return PassTime(memory_s=n_bytes / (1e9 * _MEMORY_GBPS))

    return PartTimes(
        dense=reading(cost.dense_bytes),
        experts=reading(cost.experts_read(1) * cost.expert_bytes),
        attention=PassTime(),
        head=reading(cost.head_bytes),
        calls=PassTime(),
    )


def _placed(option: GPUOption, problems: Sequence[PlacementProblem], device: GPUDevice) -> PlacedModel:
    if option.placement is not None:
        wanted = _checked(option.placement, len(problems[0].layers))
        placed = choose_settings(problems, lambda problem: price(problem, wanted))
    elif option.falls_back or option.card_bytes is not None:
        placed = choose_settings(problems, best_placement)
        if placed is not None and placed.placement.is_off:
            raise BackendError(f"no part of the model fits {device.name} ({device.description}) or is faster there")
    else:
        placed = choose_settings(problems, whole_on_card)
    if placed is None:
        smallest = problems[-1]  # its last settings take least
        least = price(smallest, option.placement) if option.placement else whole_on_card(smallest)
        raise DoesNotFitError(_too_large(least, smallest, device))
    return placed


def _checked(placement: Placement, n_layers: int) -> Placement:
    first = n_layers - placement.layers
    possible = 0 <= first <= n_layers and (placement.head or not placement.layers)
    if (
        placement.n_layers != n_layers
        or not possible
        or any(not first <= index < n_layers for index in placement.experts_in_memory)
    ):
        raise BackendError(
            f"the placement is for {placement.n_layers} layers ({placement.text()}), expected one for {n_layers}: at "
            "most as many on the card, these with the head, and experts in memory of layers on the card only"
        )
    return placement


def _too_large(placed: PlacedModel, problem: PlacementProblem, device: GPUDevice) -> str:
    return (
        f"{placed.placement.text()} ({placed.settings.text()}) needs {human_bytes(placed.card_bytes)} "
        f"on {device.name} ({device.description}) and "
        f"{human_bytes(placed.memory_bytes)} of memory; {human_bytes(problem.card_bytes)} and "
        f"{human_bytes(max(problem.memory_bytes, 0))} may be used: use gpu='auto', a shorter context, or gpu='off'"
    )


def _use(device: GPUDevice, placed: PlacedModel, footprint: Footprint) -> GPUUse:
    cost, placement = footprint.pass_cost, placed.placement
    assert isinstance(cost, PassCost), "a file's footprint has the cost of a pass"
    on_card = range(placement.n_layers - placement.layers, placement.n_layers)
    moved = [index for index in on_card if index not in placement.experts_in_memory]
    embedding_bytes = footprint.resident_bytes - cost.dense_bytes - cost.head_bytes
    head_bytes = cost.head_bytes if placement.head and embedding_bytes else 0  # a tied head is a copy
    return GPUUse(
        device=device.name,
        description=device.description,
        placement=placement,
        settings=placed.settings,
        card_bytes=placed.card_bytes,
        dense_bytes=head_bytes + sum(cost.layers[index].dense_bytes for index in on_card),
        experts_bytes=sum(cost.layers[index].experts_bytes for index in moved),
    )
