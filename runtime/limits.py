"""Threads, context, batch and memory of an engine, from a device's plan or from the user's arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral

from sprat.devices.affinity import Threads, default_threads, fast_core_ids
from sprat.devices.container import container_memory_bytes
from sprat.devices.plan.choose import choose_quant
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.plan import BATCHES, Plan
from sprat.devices.profile import DeviceProfile, find_profile
from sprat.errors import InputError
from sprat.runtime.cache import STORAGES, Storage
from sprat.runtime.footprint import DEFAULT_BATCH, DEFAULT_CONTEXT, file_footprint
from sprat.runtime.memory import parse_memory
from sprat.runtime.open_model import OpenModel

__all__ = ["LoadLimits", "check_cache", "check_flags", "checked_context", "load_limits"]

_MIN_CONTEXT = 512
_MAX_BATCH = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """How to load and run a model.

    Attributes:
        context: maximum number of tokens of prompt and answer together.
        n_threads: threads of the backend.
        batch: prompt tokens of one forward pass.
        memory_bytes: hard limit; ``None`` where pages of the mapped weights may be evicted and read again.
        cache: storage of the KV cache; ``None`` for the backend's default.
        streams: whether routed experts are streamed from storage: the plan keeps only some of them in memory.
        cores: the cores to pin threads to, on a machine with big and little cores; empty for no pinning.
    """

    context: int
    n_threads: int
    batch: int
    memory_bytes: int | None
    cache: Storage | None = None
    streams: bool = False
    cores: tuple[int, ...] = ()


def load_limits(
    model: OpenModel,
    *,
    device: str | None = None,
    memory: int | str | None = None,
    context: int | None = None,
    batch: int | None = None,
    force: bool = False,
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
        batch: prompt tokens of one forward pass; by default :data:`~sprat.runtime.footprint.DEFAULT_BATCH`, or the
            plan's.
        force: continue when the model does not fit; its pages are then read from storage repeatedly.

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
    profile = find_profile(device)
    if usable_bytes is None:
        usable_bytes = min(profile.usable_bytes, in_container or profile.usable_bytes)
    footprints = [
        file_footprint(model.spec, model.file, context=checked, cache=storage).of_batch(batch or DEFAULT_BATCH)
        for storage in model.spec.attention.storages
    ]
    if context is None:
        footprints.append(_with_shorter_context(footprints[-1].of_batch(batch or BATCHES[-1]), usable_bytes))
    plan = choose_quant(footprints, profile, usable_bytes=usable_bytes, force=force)
    limits = _from_plan(plan, threads, _cores(profile))
    return replace(limits, batch=batch) if batch else limits


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
    )


def _with_shorter_context(footprint: Footprint, usable_bytes: int) -> Footprint:
    """``footprint`` with the longest context that fits; unchanged if that is not shorter, or below the minimum."""
    context = footprint.context_within(usable_bytes - (footprint.total_bytes - footprint.cache_bytes))
    return replace(footprint, context=context) if _MIN_CONTEXT <= context < footprint.context else footprint


def check_cache(cache: object) -> None:
    """Check a format of the KV cache.

    Raises:
        InputError: there is no such format.
    """
    if cache is not None and cache not in STORAGES:
        raise InputError(f"cache is {cache!r}, expected one of {', '.join(STORAGES)}, or None for the default")


def check_flags(**flags: object) -> None:
    """Check arguments that are True or False; any text would count as True.

    Raises:
        InputError: one is neither.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}, expected True or False")


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
