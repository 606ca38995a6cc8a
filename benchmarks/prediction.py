"""What ``sprat plan`` predicts against what this machine does: a table, a scatter plot, one JSON line.

Every pass is timed right after a probe of memory and kernels, and predicted from that probe, so that a machine whose
speed drifts is compared with itself (``passes.py``). Figures are seconds: of one token behind a context, and of a
prompt of 512. Errors count on passes that the factors were not fitted to: the check is a run of its own after the fit.

    python benchmarks/prediction.py --json                       # how it does now: five quiet minutes
    python benchmarks/prediction.py --save fitted.jsonl --fit    # refit devices/plan/efficiency.toml
    python benchmarks/prediction.py --json --record              # then check it, and write down what was found
    python benchmarks/prediction.py --load fitted.jsonl          # how it does on what it was fitted to
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

from sprat.devices.plan.efficiency import Calibration, load_calibration
from sprat.devices.probe import probe
from sprat.devices.profile import load_profile
from sprat.runtime.kernels.rates import measure_rates

sys.path.insert(0, str(Path(__file__).parent))
from fit import fit, record_check, write_calibration
from passes import MODELS, Measured, Model, measure


def report(measured: list[Measured], calibration: Calibration, plot: Path | None) -> dict[str, object]:
    """Print the table, draw the plot, return the JSON line."""
    errors = {}
    print(f"{'case':58} {'measured':>10} {'predicted':>10} {'error':>7}  limited by")
    for one in measured:
        errors[one.case] = one.error(calibration)
        limit = one.predicted(calibration, one.profile).limit
        print(f"{one.case:58} {_ms(one.seconds)} {_ms(_expected(one, calibration))} {errors[one.case]:+7.1%}  {limit}")
    sizes = sorted(map(abs, errors.values()))
    median, worst = statistics.median(sizes), sizes[-1]
    print(f"median error {median:.1%}, worst {worst:.1%}, {len(sizes)} cases")
    if plot:
        _scatter(measured, calibration, plot)
        print(f"scatter plot: {plot}")
    return {"median_error": median, "worst_error": worst, "cases": len(sizes)}


def _expected(one: Measured, calibration: Calibration) -> float:
    """Seconds, as far from the measured median as the median error says."""
    return one.seconds * (1 + one.error(calibration))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:7.1f} ms"


def _scatter(measured: list[Measured], calibration: Calibration, path: Path) -> None:
    """Predicted against measured on logarithmic axes, with the diagonal and a band of 35 %."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 6), layout="constrained")
    for phase, marker in (("decode", "o"), ("prefill", "s")):
        points = [(1e3 * one.seconds, 1e3 * _expected(one, calibration)) for one in measured if one.phase == phase]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, label=phase, alpha=0.8)
    ends = np.array([1e3 * min(one.seconds for one in measured) / 2, 1e3 * max(one.seconds for one in measured) * 2])
    axes.plot(ends, ends, color="gray", linewidth=1)
    axes.fill_between(ends, ends * 0.65, ends * 1.35, color="gray", alpha=0.15, label="35 % off")
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", xlim=ends, ylim=ends)
    axes.set_title("One token and prompts of 512: predicted against measured")
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
        for model in _chosen(arguments.only):
            found = measure(model, machine, Path(folder))
            if arguments.save:
                with arguments.save.open("ab") as file:
                    file.writelines(msgspec.json.encode(one) + b"\n" for one in found)
            measured += found
            print(f"measured {model}", file=sys.stderr)
    return measured


def _chosen(only: Iterable[str]) -> list[Model]:
    """Those called so, or else those whose names contain one of the words; all without any."""
    named = [model for model in MODELS if str(model) in only]
    return named or [model for model in MODELS if not only or any(part in str(model) for part in only)]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", default=[], help="models of these names, or whose names contain one of these"
    )
    parser.add_argument("--machine", help="a profile of `sprat devices probe --save`, to spare that minute")
    parser.add_argument("--save", type=Path, help="append the measurements to this file")
    parser.add_argument("--load", type=Path, help="take them from there instead of measuring")
    purpose = parser.add_mutually_exclusive_group()
    purpose.add_argument("--fit", action="store_true", help="refit devices/plan/efficiency.toml to them")
    purpose.add_argument(
        "--record", action="store_true", help="note their errors there: those of passes that it was not fitted to"
    )
    parser.add_argument("--plot", type=Path, default=Path("prediction.png"), help="where the scatter plot goes")
    parser.add_argument("--json", action="store_true", help="no plot, only table and JSON line")
    arguments = parser.parse_args()
    measured = _collect(arguments)
    calibration = load_calibration()
    if arguments.fit:
        calibration = fit(measured, calibration)
        write_calibration(calibration)
    elif arguments.record:
        write_calibration(record_check(measured, calibration))
    found = report(measured, calibration, None if arguments.json else arguments.plot)
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
