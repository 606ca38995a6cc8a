"""Compares what ``sprat plan`` predicts with what this machine does: a table, a scatter plot, one JSON line.

Every pass is timed right after a probe of memory and kernels and predicted from that probe, so that drift of the
machine's speed affects both (``passes.py``). Times are of one decoded token at each depth and of a prefill of 512. The
check is a run after the fit, on passes that the factors were not fitted to.

    python benchmarks/prediction --json                       # current errors; five minutes on a quiet machine
    python benchmarks/prediction --save fitted.jsonl --fit    # refit devices/plan/efficiency.toml
    python benchmarks/prediction --json --record              # then check it, and record the errors there
    python benchmarks/prediction --load fitted.jsonl          # errors on the passes of the fit
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from sprat.devices.plan.efficiency import Efficiency, load_efficiency
from sprat.devices.probe import probe
from sprat.devices.profile import load_profile
from sprat.runtime.kernels.rates import measure_rates

sys.path.insert(0, str(Path(__file__).parent))
from fit import fit, record_check, write_efficiency
from passes import MODELS, Measured, Model, measure


def report(measured: list[Measured], efficiency: Efficiency, plot: Path | None) -> dict[str, object]:
    """Print the table, draw the plot, return the values of the JSON line."""
    errors = {}
    print(f"{'case':58} {'measured':>10} {'predicted':>10} {'error':>7}  limited by")
    for one in measured:
        errors[one.case] = one.error(efficiency)
        limit = one.predicted(efficiency, one.profile).limit
        print(f"{one.case:58} {_ms(one.seconds)} {_ms(_expected(one, efficiency))} {errors[one.case]:+7.1%}  {limit}")
    sizes = sorted(map(abs, errors.values()))
    median, worst = statistics.median(sizes), sizes[-1]
    print(f"median error {median:.1%}, worst {worst:.1%}, {len(sizes)} cases")
    if plot:
        _scatter(measured, efficiency, plot)
        print(f"scatter plot: {plot}")
    return {"median_error": median, "worst_error": worst, "cases": len(sizes)}


def _expected(one: Measured, efficiency: Efficiency) -> float:
    """Seconds: the measured median times one plus the median error."""
    return one.seconds * (1 + one.error(efficiency))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:7.1f} ms"


def _scatter(measured: list[Measured], efficiency: Efficiency, path: Path) -> None:
    """Predicted against measured on logarithmic axes, with the diagonal and a band of 35 %."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 6), layout="constrained")
    for phase, marker in (("decode", "o"), ("prefill", "s")):
        points = [(1e3 * one.seconds, 1e3 * _expected(one, efficiency)) for one in measured if one.phase == phase]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, label=phase, alpha=0.8)
    ends = np.array([1e3 * min(one.seconds for one in measured) / 2, 1e3 * max(one.seconds for one in measured) * 2])
    axes.plot(ends, ends, color="gray", linewidth=1)
    axes.fill_between(ends, ends * 0.65, ends * 1.35, color="gray", alpha=0.15, label="± 35 %")
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", xlim=ends, ylim=ends)
    axes.set_title("Decode of one token and prefill of 512: predicted against measured")
    axes.legend()
    figure.savefig(path, dpi=120)


def _collect(arguments: argparse.Namespace) -> list[Measured]:
    if arguments.load:
        lines = arguments.load.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Measured) for line in lines]
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        known = load_profile(arguments.machine) if arguments.machine else None
        machine = known or probe("this-machine", Path(folder), measure_rates).profile
        for model in _selected(arguments.only):
            found = measure(model, machine, Path(folder))
            if arguments.save:
                with arguments.save.open("ab") as file:
                    file.writelines(msgspec.json.encode(one) + b"\n" for one in found)
            measured += found
            print(f"measured {model}", file=sys.stderr)
    return measured


def _selected(only: Iterable[str]) -> list[Model]:
    """Models with exactly these names, else models whose names contain one of them; all if none is given."""
    named = [model for model in MODELS if str(model) in only]
    return named or [model for model in MODELS if not only or any(part in str(model) for part in only)]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of models, or parts of names")
    parser.add_argument("--machine", help="profile of this machine from `sprat devices probe --save`; saves a minute")
    parser.add_argument("--save", type=Path, help="append the measurements to this file")
    parser.add_argument("--load", type=Path, help="read measurements from this file instead of measuring")
    purpose = parser.add_mutually_exclusive_group()
    purpose.add_argument("--fit", action="store_true", help="refit devices/plan/efficiency.toml to the measurements")
    purpose.add_argument("--record", action="store_true", help="record the errors of this run there, as the check")
    parser.add_argument("--plot", type=Path, default=Path("prediction.png"), help="where to write the scatter plot")
    parser.add_argument("--json", action="store_true", help="print table and JSON line; no plot")
    arguments = parser.parse_args()
    measured = _collect(arguments)
    efficiency = load_efficiency()
    if arguments.fit:
        efficiency = fit(measured, efficiency)
        write_efficiency(efficiency)
    elif arguments.record:
        write_efficiency(record_check(measured, efficiency))
    found = report(measured, efficiency, None if arguments.json else arguments.plot)
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
