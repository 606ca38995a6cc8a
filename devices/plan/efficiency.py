"""Efficiency factors: which share of a device's rates sprat's engine reaches, and how far off a prediction may be.

They are fitted to measurements by ``python benchmarks/prediction.py --fit``, which writes
``devices/plan/efficiency.toml`` with the machine, the cases and the errors that were left; ``--record`` adds the errors
of a later run. Prefill and decode have factors of their own.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Annotated

import msgspec

from sprat.devices.parts import Basis, Figure
from sprat.errors import DeviceError

__all__ = [
    "Calibration",
    "Check",
    "Efficiency",
    "Errors",
    "Peaks",
    "Provenance",
    "load_calibration",
    "parse_calibration",
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
    """Where the factors come from, and how they did afterwards."""

    machine: str
    date: str
    sprat: str  # version
    cases: tuple[str, ...]
    median_error: float  # of the fitted cases, relative
    worst_error: float
    check: Check | None = None  # none since the fit


class Efficiency(_Table, frozen=True):
    """Shares of the device's rates, for one kind of pass.

    Attributes:
        memory: of the read rate, when packed weights stream through the products.
        compute: of the kernels' int8 rate, in dense products.
        row: what a row of a product costs beside its weights, in operations of that rate.
        experts: of what dense products reach, in the products of experts.
        grouped: of the kernels' float32 rate, in grouped-query attention.
        latent: of the same, in latent attention.
        queries: what a number of a token's queries, or of what attention gives back, costs to lay out, in operations of
            that rate.
        storage: of the medium's rate at random, when experts come from there.
        calls: what a call costs beside its work, in calls that have none.
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
    """From a device's peaks to the rates of sprat's kernels, where nobody measured them."""

    int8_share: Figure  # of the cores' int8 peak that a product of 512 tokens reaches
    one_token_share: Figure  # of the cores' int8 peak that a product of one token reaches, weights in the cache
    f32_share: Figure  # of the cores' float32 peak that attention reaches
    memory_share: Figure  # of the memory's peak that programs read
    call_cycles: Figure  # of a kernel call that has next to nothing to do: Python, waking threads


class Errors(_Table, frozen=True):
    """The relative error that a prediction states, by the basis of the figure that decides it."""

    measured: Figure
    published: Figure
    assumed: Figure

    def of(self, basis: Basis) -> float:
        """For a prediction that rests on a figure of ``basis``."""
        figure: Figure = getattr(self, basis.value)
        return figure.value


class Calibration(_Table, frozen=True):
    """All factors."""

    provenance: Provenance
    decode: Efficiency
    prefill: Efficiency
    peaks: Peaks
    errors: Errors


@functools.cache
def load_calibration() -> Calibration:
    """The factors that ship with sprat."""
    return parse_calibration((resources.files("sprat.devices.plan") / "efficiency.toml").read_bytes())


def parse_calibration(toml: bytes) -> Calibration:
    """Factors from a file's bytes.

    Raises:
        DeviceError: a key is missing, unknown or out of range.
    """
    try:
        return msgspec.toml.decode(toml, type=Calibration)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DeviceError(f"calibration: {error}; make it anew with benchmarks/prediction.py --fit") from error
