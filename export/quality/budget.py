"""Formats for every tensor from a target and the costs of formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from sprat.errors import InputError
from sprat.export.quality.options import Target
from sprat.quant.allocate import Option, allocate
from sprat.quant.formats import BlockFormat, format_names, get_format
from sprat.quant.recipe import KeptFormats, Recipe, is_kept_f32
from sprat.quant.round.grid import grid_of
from sprat.runtime.kernels.native import NATIVE_FORMATS
from sprat.text import human_bytes

__all__ = [
    "Allocation",
    "Cost",
    "Tensors",
    "allocate_bytes",
    "allocate_file",
    "allocate_target",
    "allocated_formats",
    "check_target",
    "formats_bytes",
    "outermost",
    "tensor_bytes",
]

_CLOSE = 0.001  # of the target
_MAX_ROUNDS = 8
_ONNX_FORMATS = ("Q4_0", "Q8_0")

Cost = Callable[[str, BlockFormat], float]


@dataclass(frozen=True, slots=True)
class Tensors:
    """The tensors of a model, and the formats that they may have.

    Attributes:
        shapes: canonical name -> shape.
        choices: name -> formats, of the tensors that are allocated.
        fixed: name -> format, of the others: norms, routers, biases, tensors of the user's rules, odd rows.
        tied: tensors that must have one format: ONNX stores gate and up of experts together.
    """

    shapes: Mapping[str, tuple[int, ...]]
    choices: Mapping[str, tuple[BlockFormat, ...]]
    fixed: Mapping[str, BlockFormat]
    tied: Sequence[tuple[str, ...]] = ()

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], recipe: Recipe, file_format: str = "gguf") -> Self:
        """Tensors of ``shapes``; those of the recipe's rules, and those that no recipe quantizes, are fixed."""
        choices: dict[str, tuple[BlockFormat, ...]] = {}
        for name, shape in shapes.items():
            is_fixed = len(shape) < 2 or is_kept_f32(name) or any(rule.matches(name) for rule in recipe.rules)
            usable = tuple(format for format in allocated_formats(file_format) if format.divides(shape[-1]))
            if not is_fixed and len(usable) > 1:
                choices[name] = usable
        fixed = {name: recipe.choose(name, shape).format for name, shape in shapes.items() if name not in choices}
        gates = [name for name in choices if "ffn_gate_exps" in name] if file_format == "onnx" else []
        pairs = [(name, name.replace("ffn_gate_exps", "ffn_up_exps")) for name in gates]
        return cls(shapes, choices, fixed, [pair for pair in pairs if pair[1] in choices])

    @property
    def n_weights(self) -> int:
        """The number of weights in all tensors."""
        return sum(map(math.prod, self.shapes.values()))


@dataclass(frozen=True, slots=True)
class Allocation:
    """A format for every tensor.

    Attributes:
        formats: name -> format, of all tensors.
        cost: sum of the allocated tensors' costs.
    """

    formats: Mapping[str, BlockFormat]
    cost: float

    def recipe(self, name: str, tensors: Tensors) -> Recipe:
        """The recipe ``name`` with these formats."""
        sizes = {tensor: math.prod(shape) for tensor, shape in tensors.shapes.items()}
        return KeptFormats.of(self.formats, sizes, name)


def allocated_formats(file_format: str = "gguf") -> list[BlockFormat]:
    """Formats to choose from: those that rounding knows and, where the core is built, its kernels run.

    ONNX has two of them under other names: symmetric blocks of 32 with 4 or 8 bits.
    """
    if file_format == "onnx":
        return [get_format(name) for name in _ONNX_FORMATS]
    known = [format for format in map(get_format, format_names()) if grid_of(format)]
    return [format for format in known if not NATIVE_FORMATS or format.name in NATIVE_FORMATS]


def tensor_bytes(shape: tuple[int, ...], format: BlockFormat) -> int:
    """Packed size of a tensor."""
    return math.prod(shape[:-1]) * format.row_bytes(shape[-1])


def formats_bytes(tensors: Tensors, formats: Mapping[str, BlockFormat]) -> int:
    """Packed size of all tensors."""
    return sum(tensor_bytes(tensors.shapes[name], format) for name, format in formats.items())


def outermost(tensors: Tensors, end: Callable[..., BlockFormat]) -> dict[str, BlockFormat]:
    """All tensors in their smallest formats, or in their largest ones: ``end`` is ``min`` or ``max``."""
    picked = {
        name: end(formats, key=lambda format, shape=tensors.shapes[name]: tensor_bytes(shape, format))
        for name, formats in tensors.choices.items()
    }
    return {name: picked.get(name) or tensors.fixed[name] for name in tensors.shapes}


def check_target(tensors: Tensors, target: Target, file_size: Callable[[Allocation], int]) -> None:
    """Check that a size can be reached, before anything is measured for it.

    Raises:
        InputError: the smallest formats exceed it.
    """
    smallest = outermost(tensors, min)
    if target.file_bytes is not None:
        _check_file(target.file_bytes, file_size(Allocation(smallest, 0.0)))
    elif target.bits_per_weight is not None:
        nbytes = formats_bytes(tensors, smallest)
        if _bits_budget(tensors, target.bits_per_weight) < nbytes:
            bits = 8 * nbytes / tensors.n_weights
            least = math.ceil(bits * 100) / 100
            raise InputError(
                f"--target-bpw {target.bits_per_weight:g}: no file of this model is so small: its smallest formats "
                f"take {bits:.4g} bits per weight; give at least {least:g}"
            )


def _bits_budget(tensors: Tensors, bits_per_weight: float) -> int:
    return int(bits_per_weight * tensors.n_weights / 8)


def _check_file(target: int, smallest: int) -> None:
    if smallest > target:
        raise InputError(
            f"{human_bytes(target)} hold no file of this model: its smallest formats take {human_bytes(smallest)} "
            f"({smallest:,} bytes); give a larger size"
        )


def allocate_bytes(tensors: Tensors, cost: Cost, budget: int) -> Allocation:
    """The formats with the least cost in ``budget`` bytes of all tensors.

    Raises:
        InputError: the smallest formats exceed the budget.
    """
    fixed = formats_bytes(tensors, tensors.fixed)
    tied = {name: group for group in tensors.tied for name in group}
    groups = list(dict.fromkeys(tied.get(name, (name,)) for name in tensors.choices))
    picked = allocate([_options(tensors, group, cost) for group in groups], budget, fixed)
    chosen = {name: get_format(found.name) for group, found in zip(groups, picked, strict=True) for name in group}
    formats = {name: chosen.get(name) or tensors.fixed[name] for name in tensors.shapes}
    return Allocation(formats, sum(option.cost for option in picked))


def allocate_target(
    tensors: Tensors, cost: Cost, recipe: Recipe, target: Target, file_size: Callable[[Allocation], int]
) -> Allocation:
    """The formats with the least cost in the bytes of a target; without one, in those of ``recipe``.

    Raises:
        InputError: the smallest formats exceed them.
    """
    if target.file_bytes is not None:
        return allocate_file(tensors, cost, target.file_bytes, file_size)
    if target.bits_per_weight is not None:
        return allocate_bytes(tensors, cost, _bits_budget(tensors, target.bits_per_weight))
    shapes = tensors.shapes.items()
    return allocate_bytes(tensors, cost, sum(tensor_bytes(s, recipe.choose(name, s).format) for name, s in shapes))


def _options(tensors: Tensors, group: Sequence[str], cost: Cost) -> list[Option]:
    """The formats of tensors that have the same one."""
    return [
        Option(
            format.name,
            sum(tensor_bytes(tensors.shapes[name], format) for name in group),
            sum(cost(name, format) for name in group),
        )
        for format in tensors.choices[group[0]]
    ]


def allocate_file(tensors: Tensors, cost: Cost, target: int, file_size: Callable[[Allocation], int]) -> Allocation:
    """The formats with the least cost in a file of at most ``target`` bytes, header and padding included.

    Raises:
        InputError: the smallest formats exceed it.
    """
    smallest = outermost(tensors, min)
    best = Allocation(smallest, sum(cost(name, smallest[name]) for name in tensors.choices))
    best_size, least, budget = file_size(best), formats_bytes(tensors, smallest), target
    _check_file(target, best_size)
    for _ in range(_MAX_ROUNDS):
        found = allocate_bytes(tensors, cost, budget)
        size = file_size(found)
        if best_size <= size <= target:
            best, best_size = found, size
        if target - best_size <= _CLOSE * target:
            break
        rest = size - formats_bytes(tensors, found.formats)
        budget = max(target - rest, least)  # header, padding; what the tensors left over is not counted twice
    return best
