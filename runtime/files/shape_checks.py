"""Comparing the tensors of a model with those that its architecture needs, in PyTorch's words.

*Missing*: the architecture needs it and the file lacks it. *Unexpected*: the file has it and the architecture does not
know it. *Size mismatch*: both have it, in different shapes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors

__all__ = ["Shapes", "compare_shapes", "compare_with_spec", "mtp_in_gguf", "summarize"]

MAX_LISTED = 4  # problems of one kind that a message lists; the rest is counted

Shapes = Mapping[str, tuple[int, ...]]

_LAYER = re.compile(r"blk\.(\d{1,6})\.")


def summarize(problems: Iterable[str], at_most: int = MAX_LISTED) -> str:
    """Join ``problems`` for a message: the first ``at_most``, and how many more there are.

    Example:
        >>> summarize(map(str, range(5)), 3)
        '0; 1; 2; and 2 more'
    """
    found = list(problems)
    shown = found[:at_most]
    if len(found) > at_most:
        shown.append(f"and {len(found) - at_most} more")
    return "; ".join(shown)


def compare_shapes(found: Shapes, expected: Shapes, *, optional: Collection[str] = ()) -> list[str]:
    """The differences between two tables of name -> shape, one line for each kind; empty when there are none.

    Args:
        found: the tensors of the file.
        expected: the tensors that it should hold.
        optional: names in ``expected`` that may be missing.

    Example:
        >>> compare_shapes({"a": (1,), "b": (2, 3)}, {"b": (3, 2), "c": (4,)})
        ["1 missing: 'c'", "1 unexpected: 'a'", "1 with size mismatch: 'b' is (2, 3), expected (3, 2)"]
    """
    missing = [repr(name) for name in expected if name not in found and name not in optional]
    unexpected = [repr(name) for name in found if name not in expected]
    mismatched = [
        f"{name!r} is {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("with size mismatch", mismatched))
    return [f"{len(names)} {kind}: {summarize(names)}" for kind, names in kinds if names]


def compare_with_spec(spec: ModelSpec, shapes: Shapes, *, optional: Collection[str] = ()) -> list[str]:
    """The differences between a model's tensors, under GGUF's names, and those that ``spec`` needs.

    Tensors of multi-token prediction are ignored. Arguments and result are those of :func:`compare_shapes`.
    """
    mtp = mtp_in_gguf(shapes, spec)
    found = {name: shape for name, shape in shapes.items() if name not in mtp}
    return compare_shapes(found, expected_tensors(spec), optional=optional)


def mtp_in_gguf(names: Collection[str], spec: ModelSpec) -> frozenset[str]:
    """Names of the tensors of multi-token prediction, which sprat does not run.

    A layer after the model's own is one if the keys declare it, or if it has a tensor that only such a layer has.
    Another one is a layer that the keys do not count: a model without it would be another model.
    """
    layers = {name: int(match[1]) for name in names if (match := _LAYER.match(name))}
    mtp = {layer for name, layer in layers.items() if ".nextn." in name}
    mtp.update(range(spec.n_layers, spec.n_layers + spec.n_mtp_layers))
    return frozenset(name for name, layer in layers.items() if layer >= spec.n_layers and layer in mtp)
