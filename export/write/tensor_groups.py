"""Tensors grouped by role and block format: what a manifest and an inspection list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sprat.runtime.arch.tensors import tensor_role
from sprat.runtime.files.bundle import TensorGroup

__all__ = ["TensorSize", "group_tensors"]


class TensorSize(NamedTuple):
    """One tensor of a model file; ``wanted`` is the format that the recipe asked for, if that is known."""

    name: str
    format: str
    n_weights: int
    nbytes: int
    wanted: str | None = None


def group_tensors(tensors: Iterable[TensorSize]) -> tuple[TensorGroup, ...]:
    """Group ``tensors`` over all layers, in the order in which the groups first occur."""
    groups: dict[tuple[str, str, str], list[TensorSize]] = {}
    for tensor in tensors:
        key = (tensor_role(tensor.name), tensor.format, tensor.wanted or tensor.format)
        groups.setdefault(key, []).append(tensor)
    return tuple(
        TensorGroup(
            role=role,
            format=format,
            wanted=wanted,
            n_tensors=len(members),
            n_weights=sum(tensor.n_weights for tensor in members),
            size_bytes=sum(tensor.nbytes for tensor in members),
        )
        for (role, format, wanted), members in groups.items()
    )
