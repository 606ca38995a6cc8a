"""A model on a device's GPU: whether all of it fits, and where its parts go for the fastest decode.

No part of this is fitted to measurements of a GPU: every time here is predicted, and its error is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sprat.devices.parts import Accelerator
from sprat.devices.plan.context_settings import NO_WISHES, ContextSettings
from sprat.devices.plan.footprint import Footprint, PassCost
from sprat.devices.plan.placement import (
    LayerPieces,
    PieceCost,
    PlacedModel,
    PlacementProblem,
    best_placement,
    choose_settings,
    whole_on_card,
)
from sprat.devices.plan.predict import PartTimes

__all__ = ["GPUFit", "GPUPlan", "card_buffer_bytes", "fit_gpu", "free_card_bytes", "placement_problem", "plan_gpu"]

# Assumed of every GPU whose profile does not say otherwise.
_MEMORY_SHARE = (
    0.7  # of the peak bandwidth; Qwen2.5-1.5B at 4 bits on an RTX 4050: 131.7 tokens/s of 192 GB/s (TinyBench)
)
_RESERVE_BYTES = 600 << 20  # of a card with its own memory: driver, context of the API, a desktop
_LAYER_US = 30.0  # to start the kernels of a layer
_SHARED_LAYER_US = 120.0  # of chips with slower cores; SmolLM2-135M on an Orin Nano: 165 tokens/s (smolhub.com)
_MOE_LAYER = 4  # an MoE layer starts more kernels; V2-Lite on an M2 Max GPU: 80 tokens/s (ik_llama.cpp, PR 180)
_BUS_GBPS = 6.0  # PCIe 3.0 x8, minus overhead
_HAND_OVER_US = 25.0  # to wait for the GPU and start a copy
_ACTIVATIONS = 2.6  # llama.cpp's, in times of the native kernels', as in the llamacpp backend
_FLOAT = 4
_SETTINGS = ContextSettings(flash_attention=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUFit:
    """A model in the memory of a GPU.

    Attributes:
        name: of the GPU.
        api: what a program must be built for to use it: ``cuda``, ``vulkan``.
        memory_bytes: of the GPU.
        spare_bytes: what weights, a full KV cache and buffers leave; negative when they do not fit.
        most_tokens_per_s: decode speed if a token only reads the weights once at peak bandwidth; ``None`` when the
            model does not fit or the cost of a pass is not known.
    """

    name: str
    api: str
    memory_bytes: int
    spare_bytes: int
    most_tokens_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUPlan:
    """Placements of a model on a GPU, with llama.cpp; all times are predicted, with an unknown error.

    Attributes:
        name: of the GPU.
        api: what llama.cpp must be built for to use it.
        card_bytes: memory that the model may use there.
        off: nothing on the card; ``None`` if the CPU's memory does not hold the model.
        best: the fastest that fits, which may be ``off``; ``None`` if none fits.
        whole: everything on the card, whether or not it fits.
        keep_off: why the GPU should not be used, if its profile says so.
    """

    name: str
    api: str
    card_bytes: int
    off: PlacedModel | None
    best: PlacedModel | None
    whole: PlacedModel
    keep_off: str | None = None


def fit_gpu(accelerator: Accelerator, footprint: Footprint) -> GPUFit:
    """``footprint`` in the memory of ``accelerator``."""
    memory_bytes = int(accelerator.memory_bytes.value)
    spare_bytes = memory_bytes - footprint.total_bytes
    cost = footprint.pass_cost if spare_bytes >= 0 else None
    return GPUFit(
        name=accelerator.name,
        api=accelerator.api,
        memory_bytes=memory_bytes,
        spare_bytes=spare_bytes,
        most_tokens_per_s=1e9 * accelerator.peak_gbps.value / cost.bytes_per_token if cost else None,
    )


def plan_gpu(
    accelerator: Accelerator,
    footprint: Footprint,
    on_cpu: PartTimes,
    usable_bytes: int,
    *,
    past: int = 0,
    card_bytes: int | None = None,
    settings: Iterable[ContextSettings] | None = None,
) -> GPUPlan:
    """Placements of ``footprint`` on ``accelerator``.

    Args:
        accelerator: the GPU.
        footprint: of the model, with the bytes of its layers.
        on_cpu: times of a token on the CPU.
        usable_bytes: RAM that the model may use.
        past: depth at which a token is decoded.
        card_bytes: memory of the GPU that the model may use; by default all but a reserve.
        settings: of the context to choose from, the best first; by default all, with flash attention.
    """
    problems = [
        placement_problem(accelerator, footprint, on_cpu, usable_bytes, past=past, card_bytes=card_bytes, settings=each)
        for each in settings or NO_WISHES.to_try()
    ]
    problem = problems[0]
    off = best_placement(msgspec.structs.replace(problem, card_bytes=0))
    best = off if accelerator.keep_off else choose_settings(problems, best_placement)
    return GPUPlan(
        name=accelerator.name,
        api=accelerator.api,
        card_bytes=problem.card_bytes,
        off=off,
        best=best,
        whole=choose_settings(problems, whole_on_card) or whole_on_card(problem),
        keep_off=accelerator.keep_off,
    )


def placement_problem(
    accelerator: Accelerator,
    footprint: Footprint,
    on_cpu: PartTimes,
    usable_bytes: int,
    *,
    past: int = 0,
    card_bytes: int | None = None,
    settings: ContextSettings = _SETTINGS,
) -> PlacementProblem:
    """Inputs of the search for a placement; arguments as for :func:`plan_gpu`."""
    cost = footprint.pass_cost
    assert cost is not None, "the caller checked"
    layers = _layers(accelerator, footprint, on_cpu, past, settings)
    head = _head(accelerator, cost, on_cpu)
    hand_over_s = 1e-6 * _HAND_OVER_US
    embedding_bytes = footprint.resident_bytes - cost.dense_bytes - cost.head_bytes
    # A tied head is a copy of the embeddings, which stay in memory.
    stays = footprint.buffer_bytes + (embedding_bytes or cost.head_bytes)
    memory_bytes = usable_bytes - stays
    if card_bytes is None:
        card_bytes = free_card_bytes(accelerator)
    bus = accelerator.bus_gbps.value if accelerator.bus_gbps else _BUS_GBPS
    if accelerator.shared_memory:
        bus = accelerator.peak_gbps.value
        card_bytes = min(card_bytes, memory_bytes)
    problem = PlacementProblem(
        layers=layers,
        head=head,
        card_bytes=max(card_bytes, 0),
        memory_bytes=memory_bytes,
        buffer_bytes=card_buffer_bytes(footprint, cost, settings),
        copy_bytes=max(layer.experts_bytes or layer.dense_bytes for layer in cost.layers),
        hand_over_s=hand_over_s + _FLOAT * cost.head_weights / cost.head_rows / (1e9 * bus),
        logits_s=hand_over_s + _FLOAT * cost.head_rows / (1e9 * bus),
        settings=settings,
    )
    if accelerator.shared_memory and problem.total_bytes > memory_bytes:
        return msgspec.structs.replace(problem, card_bytes=0)  # the card has no memory beside what is too small
    return problem


def free_card_bytes(accelerator: Accelerator) -> int:
    """Usable bytes of a card whose driver is not asked: all but a reserve, where the memory is its own."""
    return int(accelerator.memory_bytes.value) - (0 if accelerator.shared_memory else _RESERVE_BYTES)


def card_buffer_bytes(footprint: Footprint, cost: PassCost, settings: ContextSettings) -> int:
    """Bytes that llama.cpp allocates on the card beside weights and KV cache: activations, scores and logits."""
    activations = int(_ACTIVATIONS * settings.batch * footprint.activation_bytes)
    return activations + settings.scores_bytes(cost.n_heads, footprint.context) + 2 * _FLOAT * cost.head_rows


def _layers(
    accelerator: Accelerator, footprint: Footprint, on_cpu: PartTimes, past: int, settings: ContextSettings
) -> tuple[LayerPieces, ...]:
    """Each layer's share of the CPU's times, by its bytes; and the time to read these bytes on the card."""
    cost = footprint.pass_cost
    assert cost is not None, "the caller checked"
    n_layers = len(cost.layers)
    read_s = 1 / (1e9 * _MEMORY_SHARE * accelerator.peak_gbps.value)
    layer_us = accelerator.layer_us.value if accelerator.layer_us else 0
    start_s = 1e-6 * (layer_us or (_SHARED_LAYER_US if accelerator.shared_memory else _LAYER_US))
    entries = settings.cache_bytes(cost.f16_cache_bytes_per_token) // n_layers
    all_dense = sum(layer.dense_bytes for layer in cost.layers)
    all_experts = sum(layer.experts_bytes for layer in cost.layers)
    per_layer_s = (on_cpu.attention.total_s + on_cpu.calls.total_s) / n_layers
    used = cost.n_experts_per_token / cost.n_experts if cost.n_experts else 0.0
    layers = []
    for layer in cost.layers:
        dense = PieceCost(
            n_bytes=layer.dense_bytes + entries * footprint.context,
            memory_s=on_cpu.dense.total_s * layer.dense_bytes / all_dense + per_layer_s,
            card_s=(layer.dense_bytes + entries * past) * read_s + start_s,
        )
        experts = PieceCost(
            n_bytes=layer.experts_bytes,
            memory_s=on_cpu.experts.total_s * layer.experts_bytes / max(all_experts, 1),
            card_s=layer.experts_bytes * used * read_s + (_MOE_LAYER - 1) * start_s,
        )
        layers.append(LayerPieces(dense, experts if layer.experts_bytes else None))
    return tuple(layers)


def _head(accelerator: Accelerator, cost: PassCost, on_cpu: PartTimes) -> PieceCost:
    return PieceCost(
        n_bytes=cost.head_bytes,
        memory_s=on_cpu.head.total_s,
        card_s=cost.head_bytes / (1e9 * _MEMORY_SHARE * accelerator.peak_gbps.value),
    )
