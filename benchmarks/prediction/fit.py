"""Fits the factors of ``devices/plan/efficiency.toml`` to measured passes (``--fit``)."""

from __future__ import annotations

import datetime
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec

from sprat.devices.parts import Basis, Sourced
from sprat.devices.plan.efficiency import Check, Efficiency, Errors, Factors, Peaks, Provenance
from sprat.devices.profile import DeviceProfile
from sprat.files import atomic_write

__all__ = ["fit", "record_check", "write_efficiency"]

_PATH = Path(__file__).parents[2] / "devices" / "plan" / "efficiency.toml"
_PRIOR = Factors(  # kernels reach in a model what they reach in the probe
    memory=0.9,
    compute=1.0,
    row=300.0,
    experts=0.9,
    grouped=1.0,
    latent=1.0,
    queries=500.0,
    storage=1.0,
    calls=5.0,  # a sublayer hands work to the thread pool about five times
)
_PRIOR_STRENGTH = 1e-3  # loss of a factor that is e times its prior; keeps collinear factors identifiable
_FIRST_STEP, _LAST_STEP = 0.5, 0.005
_MIN_STATED_ERROR = 0.2  # there are few cases, and machines differ
_N_RANDOM = 60  # random directions per step size
_WORST_WEIGHT = 0.15  # weight of the worst case in the loss, beside the mean
# int8 and float32 operations per cycle and core with the widest instructions; best instruction set first.
_OPS_PER_CYCLE = {
    "avx512_vnni": (256, 64),
    "avx512": (128, 64),
    "avx_vnni": (128, 32),
    "avx2": (64, 32),
    "dotprod": (64, 16),
    "neon": (16, 8),
}


class MeasuredPass(Protocol):
    """A measured kind of pass; see :class:`passes.Measured`."""

    @property
    def case(self) -> str:
        """Its name in tables."""

    @property
    def phase(self) -> str:
        """``decode`` or ``prefill``."""

    @property
    def profile(self) -> DeviceProfile:
        """The machine, probed right before the pass."""

    def error(self, efficiency: Efficiency) -> float:
        """Relative error of the time predicted with ``efficiency``; positive when it is too long."""


def fit(measured: Sequence[MeasuredPass], start: Efficiency) -> Efficiency:
    """The factors with the smallest squared relative error; peaks come from the last probe.

    The cost of a call is fitted to decode alone: in a long pass it is too small to see.
    """
    found = _descend(measured, start, "decode", Factors.__struct_fields__)
    prefill = msgspec.structs.replace(found.prefill, calls=found.decode.calls)
    found = msgspec.structs.replace(found, prefill=prefill)
    others = [name for name in Factors.__struct_fields__ if name != "calls"]
    found = _descend(measured, found, "prefill", others)
    errors = sorted(abs(one.error(found)) for one in measured)
    profile = measured[-1].profile
    return msgspec.structs.replace(
        found,
        provenance=Provenance(
            machine=profile.title,
            date=str(_today()),
            sprat=version("sprat"),
            cases=tuple(one.case for one in measured),
            median_error=round(statistics.median(errors), 3),
            worst_error=round(errors[-1], 3),
        ),
        peaks=_peaks(profile, start.peaks),
        errors=_errors(errors[-1], "fitted", start.errors),
    )


def record_check(measured: Sequence[MeasuredPass], efficiency: Efficiency) -> Efficiency:
    """The same factors with their errors on passes after the fit; the stated error is at least the worst of them."""
    errors = sorted(abs(one.error(efficiency)) for one in measured)
    check = Check(
        date=str(_today()),
        cases=len(errors),
        median_error=round(statistics.median(errors), 3),
        worst_error=round(errors[-1], 3),
    )
    return msgspec.structs.replace(
        efficiency,
        provenance=msgspec.structs.replace(efficiency.provenance, check=check),
        errors=_errors(errors[-1], "later", efficiency.errors),
    )


def write_efficiency(efficiency: Efficiency) -> None:
    """Replace ``devices/plan/efficiency.toml``."""
    atomic_write(_PATH, msgspec.toml.encode(efficiency))


def _descend(measured: Sequence[MeasuredPass], start: Efficiency, phase: str, names: Sequence[str]) -> Efficiency:
    """Pattern search over the logarithms of one phase's factors, with decreasing steps, from the prior.

    Each factor moves alone, up and down, and all move together in random directions: collinear factors, such as the
    costs of rows and of calls, make narrow valleys.
    """
    passes = [one for one in measured if one.phase == phase]
    names = [name for name in names if _matters(passes, start, phase, name)]
    best = _replaced(start, phase, {name: getattr(_PRIOR, name) for name in names})
    least, step, rng = _loss(passes, best, phase, names), _FIRST_STEP, random.Random(0)
    while step > _LAST_STEP:
        improved = False
        for direction in _directions(names, rng):
            tried = _scaled(best, phase, {name: math.exp(step * part) for name, part in direction.items()})
            if (loss := _loss(passes, tried, phase, names)) < least:
                best, least, improved = tried, loss, True
        step = step if improved else step / 2
    return best


def _matters(passes: Sequence[MeasuredPass], start: Efficiency, phase: str, name: str) -> bool:
    """Whether any pass depends on a factor; the others keep their values."""
    halved = _scaled(start, phase, {name: 0.5})
    return any(one.error(halved) != one.error(start) for one in passes)


def _directions(names: Sequence[str], rng: random.Random) -> Iterator[dict[str, float]]:
    for name in names:
        yield from ({name: 1.0}, {name: -1.0})
    for _ in range(_N_RANDOM):
        yield {name: rng.gauss(0, 1) for name in names}


def _scaled(efficiency: Efficiency, phase: str, by: Mapping[str, float]) -> Efficiency:
    factors: Factors = getattr(efficiency, phase)
    return _replaced(efficiency, phase, {name: getattr(factors, name) * scale for name, scale in by.items()})


def _replaced(efficiency: Efficiency, phase: str, values: Mapping[str, float]) -> Efficiency:
    rounded = {name: float(f"{value:.4g}") for name, value in values.items()}
    factors = msgspec.structs.replace(getattr(efficiency, phase), **rounded)
    return msgspec.structs.replace(efficiency, **{phase: factors})


def _loss(passes: Sequence[MeasuredPass], efficiency: Efficiency, phase: str, names: Sequence[str]) -> float:
    """Mean squared error, plus the worst one again, plus the deviation from the prior."""
    squares = [one.error(efficiency) ** 2 for one in passes]
    factors = getattr(efficiency, phase)
    deviations = (math.log(getattr(factors, name) / getattr(_PRIOR, name)) ** 2 for name in names)
    return sum(squares) / len(squares) + _WORST_WEIGHT * max(squares) + _PRIOR_STRENGTH * sum(deviations)


def _peaks(profile: DeviceProfile, before: Peaks) -> Peaks:
    """Probed rates as shares of the CPU's peaks."""
    cores, compute = profile.cores[0], profile.compute
    assert compute is not None, "a probed profile has measured rates"
    int8_ops, f32_ops = next(ops for name, ops in _OPS_PER_CYCLE.items() if name in cores.features)
    cycles = profile.n_cores * cores.clock_ghz.value
    share = "rate of the probe over the peak"
    return Peaks(
        int8_share=_measured(compute.int8_gops.value / (cycles * int8_ops), share),
        one_token_share=_measured(compute.one_token_gops.value / (cycles * int8_ops), share),
        f32_share=_measured(compute.f32_gflops.value / (cycles * f32_ops), share),
        memory_share=before.memory_share,
        call_cycles=_measured(
            compute.call_us.value * 1e3 * cores.clock_ghz.value, "time of an empty call in the probe, in cycles"
        ),
    )


def _errors(worst: float, which: str, before: Errors) -> Errors:
    return msgspec.structs.replace(
        before,
        measured=_measured(
            max(worst, _MIN_STATED_ERROR),
            f"worst of the {which} cases, {worst:.0%}; at least {_MIN_STATED_ERROR:.0%}",
        ),
    )


def _measured(value: float, source: str) -> Sourced:
    return Sourced(value=float(f"{value:.3g}"), basis=Basis.MEASURED, source=f"{_today()}: {source}")


def _today() -> datetime.date:
    return datetime.datetime.now(tz=datetime.UTC).date()
