"""What ``sprat plan`` does: a model in any form that names one, against devices. Only headers are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sprat.app.model_reference import find_source
from sprat.devices.plan.choose import best_plan
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.plan import DEFAULT_PROMPT, Plan
from sprat.devices.profile import load_profile, load_profiles
from sprat.errors import DeviceError, InputError, unknown_name
from sprat.export.source.config_file import CONFIG, checkpoint_spec, read_config
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.arch.presets import find_shape, shape_names, shape_spec
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.bundle import MANIFEST_NAME
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.model_file import find_model
from sprat.runtime.footprint import file_footprint, planned_footprint, planned_recipes
from sprat.runtime.memory import parse_memory

__all__ = ["PlannedModel", "plan_model", "read_model"]


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model that need not exist yet, in the quantizations that may be chosen, best quality first."""

    name: str
    spec: ModelSpec
    footprints: tuple[Footprint, ...]


def plan_model(
    model: str,
    *,
    devices: Sequence[str] | None = None,
    context: int | None = None,
    quant: str | None = None,
    memory: int | str | None = None,
    prompt_tokens: int = DEFAULT_PROMPT,
    on_broken: Callable[[DeviceError], None] | None = None,
) -> list[Plan]:
    """Plans of ``model``, one per device, each with the best quantization that fits it.

    Args:
        model: a bundle, a GGUF file, a checkpoint folder, a ``config.json``, or the name of a published model.
        devices: profiles; all of them by default.
        context: tokens to keep room for; the model's limit, at most 4096, unless given.
        quant: the only quantization to consider; by default a file as it is, and what presets would make of it.
        memory: what the model may take, in bytes or as ``"3GB"``; by default what each device's system leaves.
        prompt_tokens: of the prompt that the predicted first token waits for.
        on_broken: called with the error of each profile that cannot be read where all devices are planned for; without
            it, the first one is raised.

    Raises:
        InputError: the model, a device, the quantization or the memory cannot be used.
    """
    profiles = [load_profile(name) for name in devices] if devices else load_profiles(on_broken or _refuse)
    usable_bytes = None if memory is None else parse_memory(memory)
    footprints = read_model(model, context=context, quant=quant).footprints
    return [
        best_plan(footprints, profile, usable_bytes=usable_bytes, prompt_tokens=prompt_tokens) for profile in profiles
    ]


def read_model(model: str, *, context: int | None = None, quant: str | None = None) -> PlannedModel:
    """What ``model`` is and what it would weigh; see :func:`plan_model`.

    Raises:
        InputError: it is nothing that names a model, or the context is beyond its limit.
    """
    path = find_source(model)
    as_it_is: tuple[Footprint, ...] = ()
    if not path.exists():
        spec = _published(model)
    elif path.suffix == ".json" or (path.is_dir() and not (path / MANIFEST_NAME).exists()):
        spec = _configured(path)
    else:
        with GGUFFile.open(find_model(path)) as file:
            spec = spec_from_metadata(file.metadata, file)
            _check_context(context, spec)
            as_it_is = (file_footprint(spec, file, context=context),) if quant is None else ()
    _check_context(context, spec)
    planned = [planned_footprint(spec, recipe, context=context) for recipe in planned_recipes(spec, quant)]
    if as_it_is:  # quantizing again gains nothing but room
        planned = [footprint for footprint in planned if footprint.weight_bytes < as_it_is[0].weight_bytes]
    return PlannedModel(model, spec, (*as_it_is, *planned))


def _refuse(error: DeviceError) -> None:
    raise error


def _published(model: str) -> ModelSpec:
    if find_shape(model) is None:
        known = unknown_name("model", model, shape_names())
        raise InputError(f"{known}; or pass a bundle, a GGUF file, a checkpoint folder or a config.json that exists")
    return shape_spec(model)


def _configured(path: Path) -> ModelSpec:
    folder = path if path.is_dir() else path.parent
    return checkpoint_spec(read_config(folder, path.name if path.is_file() else CONFIG), folder)


def _check_context(context: int | None, spec: ModelSpec) -> None:
    if context is not None and not 0 < context <= spec.max_context:
        raise InputError(f"context is {context}, expected 1 to {spec.max_context}, the longest that the model reads")
