"""Fits the factors in ``devices/plan/efficiency.toml`` to measured passes; used by ``prediction.py --fit``."""

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

from sprat.devices.parts import Basis, Figure
from sprat.devices.plan.efficiency import Calibration, Check, Efficiency, Errors, Peaks, Provenance
from sprat.devices.profile import DeviceProfile
from sprat.files import atomic_write

__all__ = ["fit", "record_check", "write_calibration"]

_PATH = Path(__file__).parent.parent / "devices" / "plan" / "efficiency.toml"
_EXPECTED = Efficiency(  # before anything is measured: kernels reach in a model what they reach in the probe
    memory=0.9,
    compute=1.0,
    row=300.0,
    experts=0.9,
    grouped=1.0,
    latent=1.0,
    queries=500.0,
    storage=1.0,
    calls=5.0,  # half a layer shares its work among threads about five times
)
_BELIEF = 1e-3  # loss of a factor that is e times what is expected: of two that explain the same, neither goes astray
_FIRST_STEP, _LAST_STEP = 0.5, 0.005
_LEAST_ERROR = 0.2  # cases are few, and machines differ
_N_RANDOM = 60  # directions for each step
_WORST_WEIGHT = 0.15  # of the worst case in what is minimized, beside the mean
# int8 and float32 operations per cycle and core of the widest instructions, best set first.
_OPS_PER_CYCLE = {
    "avx512_vnni": (256, 64),
    "avx512": (128, 64),
    "avx_vnni": (128, 32),
    "avx2": (64, 32),
    "dotprod": (64, 16),
    "neon": (16, 8),
}


class MeasuredPass(Protocol):
    """What ``prediction.py`` measures."""

    @property
    def case(self) -> str:
        """Its name."""

    @property
    def phase(self) -> str:
        """``decode`` or ``prefill``."""

    @property
    def profile(self) -> DeviceProfile:
        """The machine, probed just before."""

    def error(self, calibration: Calibration) -> float:
        """By how much ``calibration`` expects it to take longer than it did, relative."""


def fit(measured: Sequence[MeasuredPass], start: Calibration) -> Calibration:
    """The factors with the smallest squared relative error, as it is reported; peaks from the last probe.

    A call costs the same in a long pass, where nothing can be seen of it, as in a short one.
    """
    found = _descend(measured, start, "decode", Efficiency.__struct_fields__)
    calls = msgspec.structs.replace(found.prefill, calls=found.decode.calls)
    found = msgspec.structs.replace(found, prefill=calls)
    others = [name for name in Efficiency.__struct_fields__ if name != "calls"]
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


def record_check(measured: Sequence[MeasuredPass], calibration: Calibration) -> Calibration:
    """The same factors with their errors on passes other than the fit's; predictions promise no less than the worst."""
    errors = sorted(abs(one.error(calibration)) for one in measured)
    check = Check(
        date=str(_today()),
        cases=len(errors),
        median_error=round(statistics.median(errors), 3),
        worst_error=round(errors[-1], 3),
    )
    return msgspec.structs.replace(
        calibration,
        provenance=msgspec.structs.replace(calibration.provenance, check=check),
        errors=_errors(errors[-1], "later", calibration.errors),
    )


def write_calibration(calibration: Calibration) -> None:
    """Replace the file that ships with sprat."""
    atomic_write(_PATH, msgspec.toml.encode(calibration))


def _descend(measured: Sequence[MeasuredPass], start: Calibration, phase: str, names: Sequence[str]) -> Calibration:
    """Pattern search on the logarithms of the factors of a phase, with ever smaller steps, from what is expected.

    Each factor alone goes up and down, and all together into random directions: factors that can stand in for each
    other, such as the costs of rows and of calls, make narrow valleys.
    """
    passes = [one for one in measured if one.phase == phase]
    names = [name for name in names if _matters(passes, start, phase, name)]
    best = _changed(start, phase, {name: getattr(_EXPECTED, name) for name in names})
    least, step, choose = _loss(passes, best, phase, names), _FIRST_STEP, random.Random(0)
    while step > _LAST_STEP:
        improved = False
        for direction in _directions(names, choose):
            tried = _moved(best, phase, {name: math.exp(step * part) for name, part in direction.items()})
            if (loss := _loss(passes, tried, phase, names)) < least:
                best, least, improved = tried, loss, True
        step = step if improved else step / 2
    return best


def _matters(passes: Sequence[MeasuredPass], start: Calibration, phase: str, name: str) -> bool:
    """Whether any pass depends on a factor; one that nothing was measured of stays as it was."""
    halved = _moved(start, phase, {name: 0.5})
    return any(one.error(halved) != one.error(start) for one in passes)


def _directions(names: Sequence[str], choose: random.Random) -> Iterator[dict[str, float]]:
    for name in names:
        yield from ({name: 1.0}, {name: -1.0})
    for _ in range(_N_RANDOM):
        yield {name: choose.gauss(0, 1) for name in names}


def _moved(calibration: Calibration, phase: str, factors: Mapping[str, float]) -> Calibration:
    efficiency: Efficiency = getattr(calibration, phase)
    return _changed(calibration, phase, {name: getattr(efficiency, name) * by for name, by in factors.items()})


def _changed(calibration: Calibration, phase: str, values: Mapping[str, float]) -> Calibration:
    rounded = {name: float(f"{value:.4g}") for name, value in values.items()}
    efficiency = msgspec.structs.replace(getattr(calibration, phase), **rounded)
    return msgspec.structs.replace(calibration, **{phase: efficiency})


def _loss(passes: Sequence[MeasuredPass], calibration: Calibration, phase: str, names: Sequence[str]) -> float:
    """Of the errors, the worst one once more, and of factors that nobody would expect."""
    squares = [one.error(calibration) ** 2 for one in passes]
    strange = (math.log(getattr(getattr(calibration, phase), name) / getattr(_EXPECTED, name)) ** 2 for name in names)
    return sum(squares) / len(squares) + _WORST_WEIGHT * max(squares) + _BELIEF * sum(strange)


def _peaks(profile: DeviceProfile, before: Peaks) -> Peaks:
    """What the probed rates are of the processor's peaks."""
    cores, compute = profile.cores[0], profile.compute
    assert compute is not None, "a probed profile has measured rates"
    int8_ops, f32_ops = next(ops for name, ops in _OPS_PER_CYCLE.items() if name in cores.features)
    cycles = profile.n_cores * cores.clock_ghz.value
    return Peaks(
        int8_share=_measured(compute.int8_gops.value / (cycles * int8_ops), "rate of the probe over the peak"),
        one_token_share=_measured(
            compute.one_token_gops.value / (cycles * int8_ops), "rate of the probe over the peak"
        ),
        f32_share=_measured(compute.f32_gflops.value / (cycles * f32_ops), "rate of the probe over the peak"),
        memory_share=before.memory_share,
        call_cycles=_measured(compute.call_us.value * 1e3 * cores.clock_ghz.value, "time of the probe in cycles"),
    )


def _errors(worst: float, which: str, before: Errors) -> Errors:
    return msgspec.structs.replace(
        before,
        measured=_measured(
            max(worst, _LEAST_ERROR),
            f"the worst of the {which} cases, {worst:.0%}, but no promise below {_LEAST_ERROR:.0%}",
        ),
    )


def _measured(value: float, source: str) -> Figure:
    return Figure(value=float(f"{value:.3g}"), basis=Basis.MEASURED, source=f"{_today()}: {source}")


def _today() -> datetime.date:
    return datetime.datetime.now(tz=datetime.UTC).date()
