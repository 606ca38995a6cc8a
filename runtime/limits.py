"""What an engine is loaded with: threads, context, batch and memory, from a device's plan or from the user's words."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from sprat.devices.affinity import fast_core_ids
from sprat.devices.plan.choose import choose_quant
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.plan import Plan
from sprat.devices.profile import DeviceProfile, load_profile
from sprat.errors import InputError
from sprat.runtime.cache import Storage, storages
from sprat.runtime.footprint import DEFAULT_CONTEXT, file_footprint
from sprat.runtime.generate.generation import DEFAULT_BATCH
from sprat.runtime.memory import parse_memory
from sprat.runtime.open_model import OpenModel

__all__ = ["LoadLimits", "checked_context", "load_limits"]

_CONTEXT_STEP = 256  # a device's context is capped to a multiple of this
_LEAST_CONTEXT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """How to load and run a model.

    Attributes:
        context: tokens that prompt and answer may hold together.
        n_threads: of the backend.
        batch: tokens of a prompt in one pass.
        memory_bytes: hard budget; ``None`` where weights may come and go with the mapped file.
        cache: what a number of the cache is kept as, where the backend has the choice; ``None`` leaves it to it.
        streams: whether they will: the plan keeps only a part of the experts in memory.
        cores: to keep threads on, where this machine is a device with little cores.
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
    force: bool = False,
) -> LoadLimits:
    """Limits for ``model``; nothing but its header was read.

    Args:
        model: the open file.
        device: a profile whose plan decides: its cores, its memory, the longest context that fits.
        memory: hard budget, in bytes or as ``"3GB"``; replaces the device's.
        context: tokens; by default the model's own limit, at most 4096, and on a device what fits.
        force: go on where the model does not fit; its pages then come from storage again and again.

    Raises:
        InputError: the context is beyond the model's, the device unknown, the memory no amount.
        DoesNotFitError: the device cannot hold the model.
    """
    wanted = checked_context(context, model.spec.max_context)
    usable_bytes = None if memory is None else parse_memory(memory)
    here = len(os.sched_getaffinity(0))
    if device is None:
        return LoadLimits(
            context=wanted, n_threads=here, batch=DEFAULT_BATCH, memory_bytes=None if force else usable_bytes
        )
    profile = load_profile(device)
    usable_bytes = profile.usable_bytes if usable_bytes is None else usable_bytes
    footprints = [file_footprint(model.spec, model.file, context=wanted, cache=cache) for cache in storages(model.spec)]
    if context is None:
        footprints.append(_capped(footprints[-1], usable_bytes))
    plan = choose_quant(footprints, profile, usable_bytes=usable_bytes, force=force)
    return _from_plan(plan, here, _cores(profile))


def _cores(profile: DeviceProfile) -> tuple[int, ...]:
    from sprat.devices.machine import core_clocks

    return fast_core_ids(profile, core_clocks())


def _from_plan(plan: Plan, here: int, cores: tuple[int, ...]) -> LoadLimits:
    settings = plan.settings
    return LoadLimits(
        context=settings.context,
        n_threads=min(here, settings.n_threads),
        batch=settings.batch,
        memory_bytes=plan.usable_bytes if plan.fits else None,
        cache="int8" if settings.cache == "int8" else "f16",
        streams=not plan.fits,
        cores=cores,
    )


def _capped(footprint: Footprint, usable_bytes: int) -> Footprint:
    """With the longest context that lets everything else stay in memory, if there is one of a useful length."""
    left = usable_bytes - (footprint.total_bytes - footprint.cache_bytes)
    context = left // max(footprint.cache_bytes_per_token, 1) // _CONTEXT_STEP * _CONTEXT_STEP
    return replace(footprint, context=context) if _LEAST_CONTEXT <= context < footprint.context else footprint


def checked_context(context: int | None, max_context: int) -> int:
    """``context``, or the default where it is ``None``.

    Raises:
        InputError: the model was not made for so many tokens.
    """
    if context is None:
        return min(max_context, DEFAULT_CONTEXT)
    if not 0 < context <= max_context:
        raise InputError(f"context is {context}, expected 1 to {max_context}, the longest that this model was made for")
    return context
