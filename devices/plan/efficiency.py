"""Efficiency factors: the share of a device's rates that the engine reaches, and the error of a prediction.

``python benchmarks/prediction --fit`` fits them to measurements and writes ``devices/plan/efficiency.toml`` with the
machine, the cases and the remaining errors; ``--record`` adds the errors of a later run. Prefill and decode have
separate factors.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Annotated

import msgspec

from sprat.devices.parts import Basis, Sourced
from sprat.errors import DeviceError

__all__ = [
    "Check",
    "Efficiency",
    "Errors",
    "Factors",
    "Peaks",
    "Provenance",
    "load_efficiency",
    "parse_efficiency",
]

Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the file; unknown keys are errors."""


class Check(_Table, frozen=True):
    """Errors on passes that the factors were not fitted to."""

    date: str
    cases: int
    median_error: float  # relative
    worst_error: float


class Provenance(_Table, frozen=True):
    """Measurements that the factors were fitted to, and the errors of the fit."""

    machine: str
    date: str
    sprat: str  # version
    cases: tuple[str, ...]
    median_error: float  # of the fitted cases, relative
    worst_error: float
    check: Check | None = None  # None until a run after the fit is recorded


class Factors(_Table, frozen=True):
    """Shares of the device's rates, for prefill or for decode.

    Attributes:
        memory: share of the read rate, when products read packed weights from memory.
        compute: share of the kernels' int8 rate, in dense products.
        row: cost of an output value beside its weights, in int8 operations.
        experts: share of the rate of dense products, in products of experts.
        grouped: share of the kernels' float32 rate, in grouped-query attention.
        latent: share of the kernels' float32 rate, in MLA.
        queries: cost of writing a query value or attention output value out contiguously, in float32 operations.
        storage: share of the storage device's random-read rate, for streamed experts.
        calls: time of a kernel call beside its work, in times of an empty call.
    """

    memory: Positive
    compute: Positive
    row: Positive
    experts: Positive
    grouped: Positive
    latent: Positive
    queries: Positive
    storage: Positive
    calls: Positive


class Peaks(_Table, frozen=True):
    """Shares of a device's peaks that sprat's kernels reach, where their rates were not measured."""

    int8_share: Sourced  # of the cores' int8 peak, in a product with 512 tokens
    one_token_share: Sourced  # of the cores' int8 peak, in a product with one token and weights in the CPU's cache
    f32_share: Sourced  # of the cores' float32 peak, in attention
    memory_share: Sourced  # of the memory's peak bandwidth, in reads of a program
    call_cycles: Sourced  # of an empty kernel call: Python, waking the threads


class Errors(_Table, frozen=True):
    """The relative error that a prediction states, by the basis of the value that decides it."""

    measured: Sourced
    published: Sourced
    assumed: Sourced

    def of(self, basis: Basis) -> float:
        """The error of a prediction from a value with this ``basis``."""
        error: Sourced = getattr(self, basis.value)
        return error.value


class Efficiency(_Table, frozen=True):
    """The whole file."""

    provenance: Provenance
    decode: Factors
    prefill: Factors
    peaks: Peaks
    errors: Errors


@functools.cache
def load_efficiency() -> Efficiency:
    """The factors that sprat is installed with."""
    return parse_efficiency((resources.files("sprat.devices.plan") / "efficiency.toml").read_bytes())


def parse_efficiency(toml: bytes) -> Efficiency:
    """Factors from a file's bytes.

    Raises:
        DeviceError: a key is missing, unknown or out of range.
    """
    try:
        return msgspec.toml.decode(toml, type=Efficiency)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DeviceError(f"efficiency.toml: {error}; write it again with benchmarks/prediction --fit") from error
