"""The sampling parameters that a model's author recommends: ``generation_config.json``, or ``general.sampling.*`` keys.

They replace sprat's defaults, and the caller's options replace them. What is absent changes nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias, TypeGuard

import numpy as np

from sprat.errors import InputError
from sprat.runtime.generate.sampling import SamplingParams

__all__ = [
    "SamplingDefaults",
    "config_from_sampling",
    "describe_sampling",
    "metadata_from_sampling",
    "sampling_from_config",
    "sampling_from_metadata",
    "unused_entries",
]

SamplingDefaults: TypeAlias = Mapping[str, float]
"""Name of a field of :class:`~sprat.runtime.generate.sampling.SamplingParams` -> value."""

# parameter -> its name in generation_config.json, and in GGUF after general.sampling.
_NAMES = {
    "temperature": ("temperature", "temp"),
    "top_k": ("top_k", "top_k"),
    "top_p": ("top_p", "top_p"),
    "min_p": ("min_p", "min_p"),
    "repeat_penalty": ("repetition_penalty", "penalty_repeat"),
}
_PREFIX = "general.sampling."

# Entries of generation_config.json that change what transformers answers and that sprat does not use -> their defaults
_UNUSED = {
    **dict.fromkeys(("bad_words_ids", "stop_strings", "suppress_tokens", "begin_suppress_tokens", "sequence_bias")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")),
    **dict.fromkeys(("min_new_tokens", "penalty_alpha", "guidance_scale", "top_h")),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length"), 0),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff"), 0),
    **dict.fromkeys(("typical_p", "encoder_repetition_penalty", "num_beams"), 1),
}


def sampling_from_config(config: Mapping[str, Any], source: str = "generation_config.json") -> SamplingDefaults:
    """The parameters in a generation config; ``do_sample: false`` means greedy, as in transformers.

    Raises:
        InputError: a value is out of its range, and the message names ``source`` and all such values; or ``do_sample``
            is neither true nor false.
    """
    if not isinstance(chosen := config.get("do_sample"), bool | None):
        raise InputError(f"{source}: do_sample is {chosen!r}, expected true or false; correct the file")
    values = {name: config[theirs] for name, (theirs, _) in _NAMES.items() if config.get(theirs) is not None}
    if config.get("do_sample") is False:
        values["temperature"] = 0.0
    try:
        SamplingParams(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}; correct the file, or remove the entry") from error
    return values


def unused_entries(config: Mapping[str, Any]) -> list[str]:
    """Names of the entries of a generation config that change transformers' answers and that sprat does not use."""
    return [
        name
        for name, neutral in _UNUSED.items()
        if config.get(name) is not None and config[name] != neutral and config[name] != []
    ]


def sampling_from_metadata(metadata: Mapping[str, Any]) -> SamplingDefaults:
    """The parameters in a GGUF's metadata, clamped as llama.cpp does; a value that means nothing is ignored."""
    values: dict[str, float] = {}
    for name, (_, theirs) in _NAMES.items():
        if _is_finite(value := metadata.get(_PREFIX + theirs)):
            values[name] = int(value) if name == "top_k" else float(str(np.float32(value)))  # 0.6, not 0.60000002
    for name in {"temperature", "top_k", "min_p"} & values.keys():
        values[name] = max(values[name], 0)
    for name in {"top_p", "min_p"} & values.keys():
        values[name] = min(values[name], 1.0)
    return {name: value for name, value in values.items() if value > 0 or name not in {"top_p", "repeat_penalty"}}


def metadata_from_sampling(defaults: SamplingDefaults) -> dict[str, Any]:
    """The ``general.sampling.*`` keys."""
    return {
        _PREFIX + _NAMES[name][1]: np.int32(value) if name == "top_k" else np.float32(value)
        for name, value in defaults.items()
    }


def config_from_sampling(defaults: SamplingDefaults) -> dict[str, Any]:
    """The entries of a generation_config.json; greedy is ``do_sample: false`` there, not temperature 0."""
    is_greedy = defaults.get("temperature", 1) <= 0
    values = {_NAMES[name][0]: value for name, value in defaults.items() if not (is_greedy and name == "temperature")}
    return {**values, "do_sample": not is_greedy} if defaults else {}


def describe_sampling(defaults: SamplingDefaults) -> str:
    """The parameters that apply, in words: those of the model, then sprat's."""
    own = SamplingParams()
    rest = {name: getattr(own, name) for name in _NAMES if name not in defaults}
    parts = [
        f"{', '.join(f'{name} {value:g}' for name, value in values.items())} ({whose})"
        for values, whose in ((defaults, "the model's"), (rest, "sprat's defaults"))
        if values
    ]
    return "; ".join(parts)


def _is_finite(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return is_number and (abs(value) <= sys.float_info.max if isinstance(value, int) else math.isfinite(float(value)))
