"""Names of a checkpoint's tensors without the prefixes that wrappers leave.

``torch.compile``, FSDP and activation checkpointing add a segment wherever they wrap a module; ``DataParallel`` and
DeepSpeed, PEFT, and multimodal models put one in front of the whole language model. A wrapper changes no weight.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from sprat.errors import CheckpointError
from sprat.runtime.files.shape_checks import summarize

__all__ = ["check_known_names", "plain_name", "plain_names"]

T = TypeVar("T")

_ANYWHERE = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_IN_FRONT = ("module.", "base_model.model.", "language_model.", "_forward_module.", "llm.")
_MODEL = "model."
_BODY = "model.language_model."  # transformers 5 puts the language model of a multimodal one here


def plain_name(name: str) -> str:
    """``name`` without prefixes of wrappers.

    Example:
        >>> plain_name("module.base_model.model.model.layers.0._orig_mod.mlp.up_proj.weight")
        'model.layers.0.mlp.up_proj.weight'
    """
    name = _ANYWHERE.sub("", name)
    while prefix := next((prefix for prefix in _IN_FRONT if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    if name.startswith(_BODY):
        return _MODEL + name.removeprefix(_BODY)
    if name.startswith(_MODEL) and name.removeprefix(_MODEL).startswith(("lm_head.", _MODEL)):
        return name.removeprefix(_MODEL)  # the whole model was an attribute `model` of a wrapper
    return name


def plain_names(tensors: Mapping[str, T], path: Path) -> dict[str, T]:
    """The same tensors by :func:`plain_name`.

    Raises:
        CheckpointError: two tensors have the same plain name.
    """
    found: dict[str, T] = {}
    stored: dict[str, str] = {}
    for name, tensor in tensors.items():
        plain = plain_name(name)
        if plain in found:
            raise CheckpointError(
                f"{path}: {stored[plain]!r} and {name!r} are both {plain!r}; remove the tensors of one of them"
            )
        found[plain], stored[plain] = tensor, name
    return found


def check_known_names(found: Collection[str], expected: Iterable[str], path: Path, architecture: str) -> None:
    """Check that a checkpoint has at least one of the expected tensors.

    Raises:
        CheckpointError: the message shows the first names of both kinds.
    """
    expected = list(expected)
    if not any(name in found for name in expected):
        theirs = summarize(map(repr, sorted(found)), 3) or "none"
        raise CheckpointError(
            f"{path}: no tensor has a name of a {architecture} model; found {theirs}; expected "
            f"{summarize(map(repr, expected), 3)}; rename the tensors, or save the model with transformers"
        )
