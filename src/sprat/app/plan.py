"""``sprat plan``: whether a model fits devices, and its predicted speed there. Only headers are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sprat.app.model_reference import find_source
from sprat.boundary import public_call
from sprat.devices.plan.choose import best_plan
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.plan import DEFAULT_PROMPT, Plan
from sprat.devices.profile import find_profile, load_profiles
from sprat.errors import DeviceError, InputError, unknown_name
from sprat.export.quality.fitted import fitted_mix
from sprat.export.source.config_file import CONFIG, checkpoint_spec, read_config
from sprat.export.source.recognize.foreign_names import refuse_foreign_names
from sprat.runtime.arch.presets import assumed_fields, find_preset, preset_names, preset_spec
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.bundle import has_manifest
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_spec import spec_of
from sprat.runtime.files.latent_tensors import split_latent_tensors
from sprat.runtime.files.model_file import find_model
from sprat.runtime.memory.amount import parse_memory
from sprat.runtime.memory.footprint import file_footprint, planned_footprint, planned_recipes

__all__ = ["PlannedModel", "assumed_dimensions", "plan", "plan_mix", "read_model"]


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model, which need not be downloaded, and its footprint in each quantization, the best quality first."""

    name: str
    spec: ModelSpec
    footprints: tuple[Footprint, ...]


@public_call
def plan(
    model: str | os.PathLike[str],
    *,
    devices: Sequence[str] | None = None,
    context: int | None = None,
    quant: str | None = None,
    memory: int | str | None = None,
    prompt_tokens: int = DEFAULT_PROMPT,
    ignore_config_fields: Sequence[str] = (),
    on_broken: Callable[[DeviceError], None] | None = None,
) -> list[Plan]:
    """Plan ``model`` for each device, with the best quantization that fits it.

    Args:
        model: a bundle, a GGUF file, a checkpoint folder, a ``config.json``, a repository in the local Hugging Face
            cache (``"org/name"``), ``"demo"``, or the name of a preset such as ``"deepseek-v2-lite"``.
        devices: names of profiles; all profiles by default.
        context: tokens that the KV cache is planned for; by default the model's limit, at most 4096.
        quant: the only quantization to consider; by default a file as it is and the recipes that make it smaller.
        memory: memory budget of the model, in bytes or as ``"3GB"``; by default all but what each device's system
            keeps.
        prompt_tokens: length of the prompt for which the time to first token is predicted.
        ignore_config_fields: unknown fields of a checkpoint's ``config.json`` that do not change the forward pass.
        on_broken: called with the error of each profile that cannot be read, when all profiles are planned for; by
            default the first such error is raised.

    Returns:
        One plan per device: verdict, memory map, and predicted speed with its relative error.

    Raises:
        InputError: the model, a device, the quantization or the memory cannot be used.
    """
    if prompt_tokens < 1:
        raise InputError(f"prompt_tokens is {prompt_tokens}, expected at least 1")
    profiles = [find_profile(name) for name in devices] if devices else load_profiles(on_broken or _raise)
    usable_bytes = None if memory is None else parse_memory(memory)
    found = read_model(model, context=context, quant=quant, ignore_config_fields=ignore_config_fields)
    return [
        best_plan(found.footprints, profile, usable_bytes=usable_bytes, prompt_tokens=prompt_tokens)
        for profile in profiles
    ]


def read_model(
    model: str | os.PathLike[str],
    *,
    context: int | None = None,
    quant: str | None = None,
    ignore_config_fields: Sequence[str] = (),
) -> PlannedModel:
    """The dimensions and footprints of ``model``; the arguments are those of :func:`plan`.

    Raises:
        InputError: ``model`` is not a model, or the context exceeds its limit.
    """
    path = find_source(model)
    as_it_is: tuple[Footprint, ...] = ()
    is_config = path.suffix == ".json" or (path.is_dir() and not has_manifest(path))
    if ignore_config_fields and not is_config:
        raise InputError(f"{model}: --ignore-config-field needs a checkpoint folder or a config.json, this is none")
    if not path.exists():
        spec = _published(os.fspath(model))
    elif is_config:
        spec = _configured(path, ignore_config_fields)
    else:
        with GGUFFile.open(find_model(path)) as file:
            spec = spec_of(file)
            _check_context(context, spec)
            split = split_latent_tensors(file, spec)
            as_it_is = (file_footprint(spec, split, context=context),) if quant is None else ()
    _check_context(context, spec)
    planned = [planned_footprint(spec, recipe, context=context) for recipe in planned_recipes(spec, quant)]
    if as_it_is:  # requantizing only saves memory
        planned = [footprint for footprint in planned if footprint.weight_bytes < as_it_is[0].weight_bytes]
    return PlannedModel(os.fspath(model), spec, (*as_it_is, *planned))


def plan_mix(found: PlannedModel, plan: Plan) -> Plan | None:
    """The plan for a mix of formats that stays wholly in memory, where ``plan`` does not; ``None`` if there is none.

    The formats are those of ``sprat export --quality fast``. Their divergence is not known before it is measured.
    """
    return None if plan.fits else fitted_mix(found.spec, planned_recipes(found.spec)[-1], plan)


def assumed_dimensions(model: str | os.PathLike[str]) -> list[str]:
    """The fields of the preset ``model`` that are not published; empty for most, and for models that exist here."""
    name = os.fspath(model)
    return [] if os.path.lexists(name) or find_preset(name) is None else assumed_fields(name)


def _raise(error: DeviceError) -> None:
    raise error


def _published(model: str) -> ModelSpec:
    if find_preset(model) is None:
        known = unknown_name("model", model, preset_names())
        raise InputError(f"{known}; or pass an existing bundle, GGUF file, checkpoint folder or config.json")
    return preset_spec(model)


def _configured(path: Path, ignore_fields: Sequence[str]) -> ModelSpec:
    folder = path if path.is_dir() else path.parent
    spec = checkpoint_spec(read_config(folder, path.name if path.is_file() else CONFIG), folder, ignore_fields)
    if path.is_dir():
        refuse_foreign_names(path, spec)
    return spec


def _check_context(context: int | None, spec: ModelSpec) -> None:
    if context is not None and not 0 < context <= spec.max_context:
        raise InputError(f"context is {context}, expected 1 to {spec.max_context}, the model's limit")
