"""The placement of a model on a GPU of this machine, by the memory that is free there now."""

from __future__ import annotations

from dataclasses import replace

from sprat.devices.machine import available_bytes
from sprat.devices.parts import Accelerator, Basis, Sourced
from sprat.devices.plan.footprint import Footprint, PassCost
from sprat.devices.plan.gpu import placement_problem
from sprat.devices.plan.placement import PlacedModel, Placement, PlacementProblem, best_placement, price, whole_on_card
from sprat.devices.plan.predict import PartTimes, PassTime
from sprat.errors import BackendError, DoesNotFitError
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
    option: GPUOption, footprint: Footprint, *, accelerator: Accelerator | None = None, memory_bytes: int | None = None
) -> GPUUse:
    """The fastest placement of a file on the GPU with the most free memory, or the one that the caller wants.

    Args:
        option: what the caller wants.
        footprint: of the file, with the bytes of its layers.
        accelerator: of the device's profile; without one its rates are assumed.
        memory_bytes: RAM that the model may use; by default what is available.

    Raises:
        BackendError: there is no GPU, or the CPU is predicted to be faster.
        DoesNotFitError: what should be on the card does not fit there, or the rest not into memory.
    """
    device = _most_free()
    if option.falls_back and accelerator is not None and accelerator.keep_off:
        raise BackendError(f"{accelerator.name} is better kept off: {accelerator.keep_off}")
    free_bytes = device.free_bytes - min(int((1 - _FREE_SHARE) * device.free_bytes), _MOST_MARGIN)
    card_bytes = min(free_bytes, option.card_bytes or free_bytes)
    problem = placement_problem(
        accelerator or assumed_accelerator(device, option),
        footprint,
        _assumed_times(footprint),
        memory_bytes or available_bytes(),
        card_bytes=card_bytes,
    )
    if accelerator is None:
        problem = replace(problem, hand_over_s=0.0, logits_s=0.0)
    placed = _placed(option, problem, device)
    return _use(device, placed, footprint)


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


def _most_free() -> GPUDevice:
    found = find_gpus()
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


def _placed(option: GPUOption, problem: PlacementProblem, device: GPUDevice) -> PlacedModel:
    if option.placement is not None:
        placed = price(problem, _checked(option.placement, len(problem.layers)))
    elif option.falls_back or option.card_bytes is not None:
        best = best_placement(problem)
        if best is None:
            raise DoesNotFitError(_too_large(whole_on_card(problem), problem, device))
        if best.placement.is_off:
            raise BackendError(f"no part of the model fits {device.name} ({device.description}) or is faster there")
        return best
    else:
        placed = whole_on_card(problem)
    if not placed.fits:
        raise DoesNotFitError(_too_large(placed, problem, device))
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
        f"{placed.placement.text()} needs {human_bytes(placed.card_bytes)} on {device.name} ({device.description}) and "
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
        card_bytes=placed.card_bytes,
        dense_bytes=head_bytes + sum(cost.layers[index].dense_bytes for index in on_card),
        experts_bytes=sum(cost.layers[index].experts_bytes for index in moved),
    )
