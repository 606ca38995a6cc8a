"""Threads, context, batch and memory of an engine, from a device's plan or from the user's arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING

from sprat.devices.affinity import Threads, default_threads, fast_core_ids
from sprat.devices.container import container_memory_bytes
from sprat.devices.parts import Accelerator
from sprat.devices.plan.footprint import Footprint
from sprat.devices.profile import DeviceProfile, find_profile
from sprat.errors import InputError
from sprat.runtime.cache import Storage
from sprat.runtime.memory.amount import parse_memory
from sprat.runtime.memory.buffers import isolation_bytes
from sprat.runtime.memory.footprint import DEFAULT_BATCH, DEFAULT_CONTEXT, file_footprint
from sprat.runtime.memory.key_bias import has_large_key_bias
from sprat.runtime.open_model import OpenModel

if TYPE_CHECKING:
    from sprat.devices.plan.plan import Plan

__all__ = ["LoadLimits", "checked_context", "load_limits"]

_MIN_CONTEXT = 512
_MAX_BATCH = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """Context, threads, batch and cache with which a model is loaded.

    Attributes:
        context: maximum number of tokens of prompt and answer together.
        n_threads: threads of the backend.
        batch: prompt tokens of one forward pass.
        memory_bytes: hard limit; ``None`` where pages of the mapped weights may be evicted and read again.
        cache: storage of the KV cache; ``None`` for the backend's default.
        streams: whether routed experts are streamed from storage: the plan keeps only some of them in memory.
        cores: the cores to pin threads to, on a machine with big and little cores; empty for no pinning.
        accelerator: the device's GPU.
    """

    context: int
    n_threads: int
    batch: int
    memory_bytes: int | None
    cache: Storage | None = None
    streams: bool = False
    cores: tuple[int, ...] = ()
    accelerator: Accelerator | None = None


def load_limits(
    model: OpenModel,
    *,
    device: str | None = None,
    memory: int | str | None = None,
    context: int | None = None,
    batch: int | None = None,
    force: bool = False,
    isolated: bool = False,
) -> LoadLimits:
    """Limits for ``model``; only its header is read.

    Threads are those of :func:`~sprat.devices.affinity.default_threads`, and no more than the device's.

    Args:
        model: the open model.
        device: name of a device profile. Its plan decides by the device's cores, memory and the longest context that
            fits.
        memory: hard limit, in bytes or as ``"3GB"``; replaces the device's. By default the limit of this process's
            container, if it has one.
        context: in tokens; by default the model's limit, at most 4096, and on a device what fits.
        batch: prompt tokens of one forward pass; by default the plan's, or
            :data:`~sprat.runtime.memory.footprint.DEFAULT_BATCH`.
        force: continue when the model does not fit; its pages are then read from storage repeatedly.
        isolated: the backend runs in a process of its own, which takes memory too.

    Raises:
        InputError: the context is longer than the model's, the batch is below 1, the device is unknown, or ``memory``
            is not an amount.
        DoesNotFitError: the model does not fit on the device.
    """
    checked = checked_context(context, model.spec.max_context)
    _check_batch(batch)
    usable_bytes = None if memory is None else parse_memory(memory)
    in_container, threads = container_memory_bytes(), default_threads()
    if device is None:
        usable_bytes = in_container if usable_bytes is None else usable_bytes
        return LoadLimits(
            context=checked,
            n_threads=threads.count,
            batch=batch or DEFAULT_BATCH,
            memory_bytes=None if force else usable_bytes,
            cores=threads.cores,
        )
    from sprat.devices.plan.choose import choose_quant  # takes long to import, and only a device needs it

    profile = find_profile(device)
    if usable_bytes is None:
        usable_bytes = min(profile.usable_bytes, in_container or profile.usable_bytes)
    extra_bytes = isolation_bytes(model.spec.vocab_size) if isolated else 0
    footprints = _footprints(model, checked, batch, None if context is not None else usable_bytes, extra_bytes)
    plan = choose_quant(footprints, profile, usable_bytes=usable_bytes, force=force)
    limits = _from_plan(plan, threads, _cores(profile))
    return replace(limits, batch=batch) if batch else limits


def _footprints(
    model: OpenModel, context: int, batch: int | None, shorten_to: int | None, extra_bytes: int = 0
) -> list[Footprint]:
    """The footprints to try, best first: ``context`` with every storage of the cache, then a shorter one.

    Where the int8 cache loses precision, a shorter context in float16 comes before it.

    Args:
        model: the open model.
        context: in tokens.
        batch: prompt tokens of one forward pass; ``None`` for the default, and for fewer before a shorter context.
        shorten_to: memory in bytes that a shorter context may take; ``None`` if the context is fixed.
        extra_bytes: memory besides what the model takes in one process.
    """
    storages = model.spec.attention.storages
    footprints = (file_footprint(model.spec, model.file, context=context, cache=storage) for storage in storages)
    with_extra = (replace(footprint, buffer_bytes=footprint.buffer_bytes + extra_bytes) for footprint in footprints)
    whole = [footprint.of_batch(batch or DEFAULT_BATCH) for footprint in with_extra]
    if shorten_to is None:
        return whole
    from sprat.devices.plan.plan import BATCHES

    short = [_with_shorter_context(footprint.of_batch(batch or BATCHES[-1]), shorten_to) for footprint in whole]
    if has_large_key_bias(model.file):
        return [footprint for pair in zip(whole, short, strict=True) for footprint in pair]
    return [*whole, short[-1]]


def _cores(profile: DeviceProfile) -> tuple[int, ...]:
    from sprat.devices.machine import core_clocks

    return fast_core_ids(profile, core_clocks())


def _from_plan(plan: Plan, threads: Threads, cores: tuple[int, ...]) -> LoadLimits:
    settings = plan.settings
    n_threads = min(threads.count, settings.n_threads)
    return LoadLimits(
        context=settings.context,
        n_threads=n_threads,
        batch=settings.batch,
        memory_bytes=plan.usable_bytes if plan.fits else None,
        cache="int8" if settings.cache == "int8" else "f16",
        streams=not plan.fits,
        cores=(cores or threads.cores)[:n_threads],
        accelerator=plan.profile.accelerator,
    )


def _with_shorter_context(footprint: Footprint, usable_bytes: int) -> Footprint:
    """``footprint`` with the longest context that fits; unchanged if that is not shorter, or below the minimum."""
    context = footprint.context_within(usable_bytes - (footprint.total_bytes - footprint.cache_bytes))
    return replace(footprint, context=context) if _MIN_CONTEXT <= context < footprint.context else footprint


def _check_batch(batch: object) -> None:
    if batch is None:
        return
    if not isinstance(batch, Integral) or isinstance(batch, bool) or not 0 < int(batch) <= _MAX_BATCH:
        raise InputError(f"batch is {batch!r}, expected 1 to {_MAX_BATCH:,} prompt tokens of one forward pass")


def checked_context(context: int | None, max_context: int) -> int:
    """``context``, or the default when it is ``None``.

    Raises:
        InputError: ``context`` is below 1 or longer than ``max_context``.
    """
    if context is None:
        return min(max_context, DEFAULT_CONTEXT)
    if isinstance(context, bool) or not isinstance(context, Integral) or not 0 < context <= max_context:
        raise InputError(f"context is {context!r}, expected 1 to {max_context}, the model's longest")
    return context
