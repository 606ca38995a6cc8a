"""Fit the efficiency factors of ``devices/calibration.toml`` to measured passes; ``prediction.py --fit`` calls it."""

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

from sprat.devices.calibration import Calibration, Efficiency, Errors, Peaks, Provenance
from sprat.devices.parts import Basis, Figure
from sprat.devices.predict import Limit
from sprat.devices.profile import DeviceProfile

__all__ = ["fit", "write_calibration"]

_PATH = Path(__file__).parent.parent / "devices" / "calibration.toml"
_PHASES = ("decode", "prefill")
_BOUNDS = {  # what is physically plausible; a share over 1 means that the probe's matrix was less favourable
    "memory": (0.3, 1.1),
    "compute": (0.3, 2.0),
    "row": (1.0, 20_000.0),
    "experts": (0.5, 2.5),
    "grouped": (0.05, 3.0),
    "latent": (0.05, 3.0),
    "storage": (0.1, 2.0),
    "calls": (0.5, 4.0),
}
_FIRST_STEP, _LAST_STEP = 0.5, 0.005
_LEAST_ERROR = 0.2  # the fit knows its own cases best
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
    def seconds(self) -> float:
        """How long it took."""

    @property
    def profile(self) -> DeviceProfile:
        """The machine, probed just before."""

    def predicted(self, calibration: Calibration) -> tuple[float, Limit]:
        """Seconds that ``calibration`` expects."""


def fit(measured: Sequence[MeasuredPass], start: Calibration) -> Calibration:
    """The factors with the smallest squared relative error, as it is reported; peaks from the last probe."""
    found = start
    for phase in _PHASES:
        passes = [one for one in measured if one.phase == phase]
        found = _descend(passes, found, phase)
    errors = sorted(abs(one.predicted(found)[0] / one.seconds - 1) for one in measured)
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
        errors=_errors(errors[-1], start.errors),
    )


def write_calibration(calibration: Calibration) -> None:
    """Replace the file that ships with sprat."""
    partial = _PATH.with_suffix(".partial")
    partial.write_bytes(msgspec.toml.encode(calibration))
    partial.replace(_PATH)


def _descend(passes: Sequence[MeasuredPass], start: Calibration, phase: str) -> Calibration:
    """Pattern search on the logarithms of the factors, with ever smaller steps.

    Each factor alone goes up and down, and all together into random directions: factors that can stand in for each
    other, such as the costs of rows and of calls, make narrow valleys.
    """
    best, least, step = start, _loss(passes, start), _FIRST_STEP
    choose = random.Random(0)
    names = [name for name in Efficiency.__struct_fields__ if _matters(passes, start, phase, name)]
    while step > _LAST_STEP:
        improved = False
        for direction in _directions(names, choose):
            tried = _moved(best, phase, {name: math.exp(step * part) for name, part in direction.items()})
            if (loss := _loss(passes, tried)) < least:
                best, least, improved = tried, loss, True
        step = step if improved else step / 2
    return best


def _matters(passes: Sequence[MeasuredPass], start: Calibration, phase: str, name: str) -> bool:
    """Whether any pass depends on a factor; one that nothing was measured of stays as it was."""
    halved = _moved(start, phase, {name: 0.5})
    return any(one.predicted(halved)[0] != one.predicted(start)[0] for one in passes)


def _directions(names: Sequence[str], choose: random.Random) -> Iterator[dict[str, float]]:
    for name in names:
        yield from ({name: 1.0}, {name: -1.0})
    for _ in range(_N_RANDOM):
        yield {name: choose.gauss(0, 1) for name in names}


def _moved(calibration: Calibration, phase: str, factors: Mapping[str, float]) -> Calibration:
    efficiency: Efficiency = getattr(calibration, phase)
    changed = {}
    for name, factor in factors.items():
        least, most = _BOUNDS[name]
        changed[name] = float(f"{min(max(getattr(efficiency, name) * factor, least), most):.4g}")
    return msgspec.structs.replace(calibration, **{phase: msgspec.structs.replace(efficiency, **changed)})


def _loss(passes: Sequence[MeasuredPass], calibration: Calibration) -> float:
    squares = [(one.predicted(calibration)[0] / one.seconds - 1) ** 2 for one in passes]
    return sum(squares) / len(squares) + _WORST_WEIGHT * max(squares)


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


def _errors(worst: float, before: Errors) -> Errors:
    return msgspec.structs.replace(
        before,
        measured=_measured(
            max(worst, _LEAST_ERROR),
            f"the worst of the fitted cases, {worst:.0%}, but no promise below {_LEAST_ERROR:.0%}",
        ),
    )


def _measured(value: float, source: str) -> Figure:
    return Figure(value=float(f"{value:.3g}"), basis=Basis.MEASURED, source=f"{_today()}: {source}")


def _today() -> datetime.date:
    return datetime.datetime.now(tz=datetime.UTC).date()
