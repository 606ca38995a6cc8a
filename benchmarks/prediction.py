"""What ``sprat plan`` predicts against what this machine does: a table, a scatter plot, one JSON line.

Every model is measured right after a probe of memory and kernels, and predicted from that probe, so that a machine
whose speed drifts is compared with itself. Figures are seconds: of one token behind a context, and of a prompt of 512.

    python benchmarks/prediction.py --json
    python benchmarks/prediction.py --save cases.jsonl --only r1-distill-llama-8b   # measure some, keep them
    python benchmarks/prediction.py --load cases.jsonl --fit                        # refit devices/calibration.toml
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from sprat.devices.calibration import Calibration, load_calibration
from sprat.devices.cgroups import Limits, find_tree, plan_groups
from sprat.devices.emulate import Emulator
from sprat.devices.footprint import Footprint
from sprat.devices.plan import Plan
from sprat.devices.predict import PREFILL_CHUNK, Limit, Predictor, device_rates
from sprat.devices.probe import measure_again, probe
from sprat.devices.profile import DeviceProfile, load_profile
from sprat.devices.results import Emulation
from sprat.export.pipeline import export
from sprat.export.random_shape import cached_shape
from sprat.places import find_source
from sprat.runtime.backends.backend import TokenStream
from sprat.runtime.backends.registry import LoadRequest, choose, open_backend
from sprat.runtime.footprint import file_footprint
from sprat.runtime.gguf import GGUFFile
from sprat.runtime.gguf_metadata import spec_from_metadata
from sprat.runtime.kernels.rates import measure_rates
from sprat.runtime.memory import parse_memory

sys.path.insert(0, str(Path(__file__).parent))
from fit import fit, write_calibration

_DEPTHS = (0, 2048)
_DECODED = 16
_REPEATS = 3  # the first prompt may wait for the file: the median of two would take half of that


@dataclass(frozen=True, slots=True)
class Model:
    """A file to measure: the packaged student, or some layers of a published shape with random weights."""

    name: str  # "demo", or a shape
    quant: str
    layers: int | None = None
    memory: str | None = None  # a budget too small to hold all experts

    def __str__(self) -> str:
        layers = f" {self.layers} layers" if self.layers else ""
        return f"{self.name}{layers} {self.quant}{f' in {self.memory}' if self.memory else ''}"


MODELS = (
    Model("demo", "int4"),
    Model("demo", "int8"),
    Model("smollm2-135m", "int4"),
    Model("smollm2-135m", "int8"),
    Model("deepseek-v2-lite", "int4", layers=5),
    Model("deepseek-v2-lite", "int8", layers=4),
    Model("r1-distill-qwen-1.5b", "int4", layers=8),
    Model("r1-distill-qwen-1.5b", "int8", layers=6),
    Model("r1-distill-llama-8b", "int4", layers=3),
    Model("r1-distill-llama-8b", "int8", layers=2),
    Model("deepseek-v2-lite", "int4", layers=5, memory="1300MB"),
)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one model on a machine that was probed just before."""

    model: str
    phase: str  # "decode" or "prefill"
    depth: int  # tokens in the cache before
    seconds: float
    profile: DeviceProfile
    footprint: Footprint
    memory_bytes: int | None = None

    @property
    def case(self) -> str:
        """Its name in tables."""
        return f"{self.model}, {self.phase} @ {self.depth}"

    def predicted(self, calibration: Calibration) -> tuple[float, Limit]:
        """Seconds that ``calibration`` expects, and what they are spent on."""
        plan = Plan(self.profile, self.footprint, self.memory_bytes or self.profile.usable_bytes)
        rates = device_rates(self.profile, calibration, self.profile.storage[0])
        assert self.footprint.work is not None, "footprints of files have it"
        predictor = Predictor(self.footprint.work, rates, calibration, plan.held_experts_share)
        decodes = self.phase == "decode"
        time = predictor.decode(self.depth) if decodes else predictor.prefill(PREFILL_CHUNK, self.depth)
        return time.total_s, time.limit


def measure(model: Model, machine: DeviceProfile, folder: Path) -> Iterator[Measured]:
    """Probe the machine, then time tokens and prompts at each depth."""
    path = _file(model, folder)
    with GGUFFile.open(path) as file:
        spec = spec_from_metadata(file.metadata, file)
        footprint = file_footprint(spec, file)
        profile = measure_again(machine, measure_rates)
        request = LoadRequest(
            file=file,
            spec=spec,
            context=max(_DEPTHS) + 2 * PREFILL_CHUNK,
            n_threads=profile.n_threads,
            streams=model.memory is not None,
        )
        backend = open_backend(choose("native", request), request)
        stream = backend.new_stream(request.context)
        tokens = np.random.default_rng(0).integers(0, min(spec.vocab_size, 1000), request.context).tolist()
        for depth in _DEPTHS[:1] if model.memory else _DEPTHS:  # minutes of reading from storage otherwise
            for phase, seconds in _time(stream, depth, tokens):
                yield Measured(
                    model=str(model),
                    phase=phase,
                    depth=depth,
                    seconds=seconds,
                    profile=profile,
                    footprint=footprint,
                    memory_bytes=parse_memory(model.memory) if model.memory else None,
                )
        backend.close()


def measure_limited(model: Model, machine: DeviceProfile, folder: Path) -> list[Measured]:
    """The same in a child process that a control group keeps below the model's budget, page cache included."""
    assert model.memory is not None, "a budget was given"
    _forget(_file(model, folder))
    cores = tuple(sorted(os.sched_getaffinity(0)))
    limits = Limits(memory_bytes=parse_memory(model.memory), cores=cores, cpu_share=1.0)
    groups = tuple(plan_groups(find_tree(), limits, f"sprat-prediction-{os.getpid()}"))
    description = msgspec.json.encode(machine)
    with Emulator(limits, _described(limits), groups).limited() as prefix:
        command = [*prefix, sys.executable, __file__, "--worker", str(model)]
        child = subprocess.run(command, input=description, stdout=subprocess.PIPE, check=True)
    return [msgspec.json.decode(line, type=Measured) for line in child.stdout.splitlines()]


def _described(limits: Limits) -> Emulation:
    return Emulation(
        cgroup_version=find_tree().version,
        memory_bytes=limits.memory_bytes,
        n_cores=len(limits.cores),
        cpu_share=limits.cpu_share,
        read_bytes_per_second=None,
        storage="this machine's",
        not_emulated=(),
    )


def _forget(path: Path) -> None:
    """Drop the file's pages: those that somebody else read would not count against the group's limit."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _serve(model: Model) -> None:
    """The child's side: the machine on standard input, a line per figure on standard output."""
    machine = msgspec.json.decode(sys.stdin.buffer.read(), type=DeviceProfile)
    for one in measure(model, machine, Path()):
        sys.stdout.buffer.write(msgspec.json.encode(one) + b"\n")


def _time(stream: TokenStream, depth: int, tokens: list[int]) -> Iterator[tuple[str, float]]:
    while stream.length < depth:
        stream.extend(tokens[stream.length :][: min(PREFILL_CHUNK, depth - stream.length)])
    decoding, prompting = [], []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        stream.extend(tokens[:PREFILL_CHUNK])
        prompting.append(time.perf_counter() - start)
        stream.truncate(depth)
        stream.extend(tokens[:1])
        start = time.perf_counter()
        for token in tokens[:_DECODED]:
            stream.extend([token])
        decoding.append((time.perf_counter() - start) / _DECODED)
        stream.truncate(depth)
    yield "decode", statistics.median(decoding)
    yield "prefill", statistics.median(prompting)


def _file(model: Model, folder: Path) -> Path:
    if model.name == "demo":
        return export(find_source("demo"), folder / model.quant, quant=model.quant).bundle.artifact("gguf")
    return cached_shape(model.name, model.quant, model.layers)


def report(measured: list[Measured], calibration: Calibration, plot: Path | None) -> dict[str, object]:
    """Print the table, draw the plot, return the JSON line."""
    errors = {}
    print(f"{'case':58} {'measured':>10} {'predicted':>10} {'error':>7}  limited by")
    for one in measured:
        seconds, limit = one.predicted(calibration)
        errors[one.case] = seconds / one.seconds - 1
        print(f"{one.case:58} {_ms(one.seconds)} {_ms(seconds)} {errors[one.case]:+7.1%}  {limit}")
    sizes = sorted(map(abs, errors.values()))
    median, worst = statistics.median(sizes), sizes[-1]
    print(f"median error {median:.1%}, worst {worst:.1%}, {len(sizes)} cases")
    if plot:
        _scatter(measured, calibration, plot)
        print(f"scatter plot: {plot}")
    return {"median_error": median, "worst_error": worst, "cases": len(sizes)}


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:7.1f} ms"


def _scatter(measured: list[Measured], calibration: Calibration, path: Path) -> None:
    """Predicted against measured on logarithmic axes, with the diagonal and a band of 35 %."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 6), layout="constrained")
    for phase, marker in (("decode", "o"), ("prefill", "s")):
        points = [(1e3 * one.seconds, 1e3 * one.predicted(calibration)[0]) for one in measured if one.phase == phase]
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
            take = measure_limited if model.memory else measure
            found = list(take(model, machine, Path(folder)))
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
    parser.add_argument("--fit", action="store_true", help="refit devices/calibration.toml to them")
    parser.add_argument("--plot", type=Path, default=Path("prediction.png"), help="where the scatter plot goes")
    parser.add_argument("--json", action="store_true", help="no plot, only table and JSON line")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _serve(next(model for model in MODELS if str(model) == arguments.worker))
        return
    measured = _collect(arguments)
    calibration = load_calibration()
    if arguments.fit:
        calibration = fit(measured, calibration)
        write_calibration(calibration)
    found = report(measured, calibration, None if arguments.json else arguments.plot)
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
