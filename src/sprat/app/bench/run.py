"""The parent of a benchmark: decides what to run where, starts the child, and passes its records on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from sprat import errors
from sprat.app.bench.messages import Failure, Job, Message, Result, Traced, Working
from sprat.app.bench.predicted import predictions
from sprat.app.bench.trace import TraceReport
from sprat.app.model_reference import find_source
from sprat.devices.bench.digest import file_digest
from sprat.devices.bench.resources import drop_cached
from sprat.devices.bench.results import BenchTest, Measurement, Setting
from sprat.devices.cpu import this_cpu
from sprat.devices.emulate.emulate import Emulator, choose_storage, plan_emulation
from sprat.devices.machine import memory_bytes
from sprat.devices.profile import DeviceProfile, load_profile
from sprat.errors import BackendError, DeviceError, EmulationError, InputError
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.runtime.files.bundle import MANIFEST_NAME
from sprat.runtime.open_model import open_model

__all__ = ["BenchOptions", "bench"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to measure and how; the options of ``sprat bench``.

    Attributes:
        model: a bundle or a GGUF; or else
        shape: the name of a published model, of which a file with random weights is written to the user's cache.
        quant: of that file: a block format, or a recipe.
        layers: of that file; all of them by default.
        n_prompt: lengths of prompts to process.
        n_gen: numbers of tokens to generate.
        depths: tokens in the cache before each test.
        repetitions: samples of each test.
        threads: all usable cores by default; of an emulated device, as many as it has.
        batch: tokens of a prompt that are processed at once; by default as the engine would.
        backend: ``"auto"`` or one that ``sprat doctor`` lists.
        device: the profile that this machine is, or that it shall emulate.
        emulate: run under the device's limits.
        storage: of the device, where the model lies; its fastest by default.
        sustained_s: keep each test running for this long and compare its speed at first with that at last.
        trace: also time every kernel.
    """

    model: str | None = None
    shape: str | None = None
    quant: str = "Q4_0"
    layers: int | None = None
    n_prompt: tuple[int, ...] = (512,)
    n_gen: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0,)
    repetitions: int = 5
    threads: int | None = None
    batch: int | None = None
    backend: str = "auto"
    device: str | None = None
    emulate: bool = False
    storage: str | None = None
    sustained_s: float = 0.0
    trace: bool = False


def bench(options: BenchOptions, *, progress: ReportProgress = no_progress) -> Iterator[Measurement | TraceReport]:
    """Run the tests and yield each record as it is made, and with ``trace`` a report for each test after them.

    Args:
        options: what to measure and how.
        progress: called with (tests done, tests to do, the test that runs).

    Raises:
        InputError: the model, the shape, a test or the device cannot be used.
        EmulationError: the device's limits cannot be set here, or killed the child.
        BackendError: the backend cannot run the file, or died.
        ExportError: the random file does not fit on the disk.
    """
    works = _works(options)
    profile = load_profile(options.device) if options.device else None
    if profile is not None and not options.emulate:
        _check_is_this_machine(profile)
    elif profile is None and options.emulate:
        raise InputError("--emulate: no device was named; add --device NAME (see: sprat devices)")
    path = _file(options, progress)
    if profile is None or not options.emulate:
        yield from _run_child(_job(options, works, path, None), None, progress)
    else:
        yield from _emulated(options, works, path, profile, progress)


def _emulated(
    options: BenchOptions, works: tuple[BenchTest, ...], path: Path, profile: DeviceProfile, progress: ReportProgress
) -> Iterator[Measurement | TraceReport]:
    """Records made under the limits, then what the planner predicts for the same tests."""
    storage = choose_storage(profile, options.storage)
    emulator = plan_emulation(profile, storage, path)
    made = []
    for record in _run_child(_job(options, works, path, emulator), emulator, progress):
        made.append(record)
        yield record
    emulated = [record for record in made if isinstance(record, Measurement)]
    if emulated and emulated[0].backend == "native":  # what predictions are fitted to
        yield from predictions(emulated, str(path), profile, storage)


def _works(options: BenchOptions) -> tuple[BenchTest, ...]:
    """llama-bench's order: all prompts, then all generations, for each depth."""
    sizes = {"-p": options.n_prompt, "-n": options.n_gen, "-d": options.depths}
    if wrong := [f"{name} {size}" for name, values in sizes.items() for size in values if size < 0]:
        raise InputError(f"{', '.join(wrong)}: numbers of tokens begin at 0")
    works = [
        make(size, depth)
        for depth in sorted(options.depths)
        for make, values in ((BenchTest.prefill, options.n_prompt), (BenchTest.decode, options.n_gen))
        for size in values
        if size
    ]
    if not works:
        raise InputError("there is nothing to measure: give -p or -n a number of tokens, and -d at least one depth")
    return tuple(works)


def _file(options: BenchOptions, progress: ReportProgress) -> Path:
    if (options.model is None) == (options.shape is None):
        raise InputError("give either a MODEL (a bundle or a GGUF) or --shape NAME (random weights; see: sprat plan)")
    if options.model is not None:
        path = find_source(options.model)
        if path.is_dir() and not (path / MANIFEST_NAME).exists():
            raise InputError(f"{options.model}: is no bundle; make one:  sprat export {options.model} OUT")
        return open_model(path, options.backend).file.path  # checked before a child is started
    from sprat.export.gguf.random_weights import cached_shape

    assert options.shape is not None, "one of the two is given"
    return cached_shape(
        options.shape,
        options.quant,
        options.layers,
        progress=lambda state: progress(dataclasses.replace(state, what=f"writing random weights: {state.what}")),
    )


def _job(options: BenchOptions, works: tuple[BenchTest, ...], path: Path, emulator: Emulator | None) -> Job:
    n_cores = len(emulator.limits.cores) if emulator else len(os.sched_getaffinity(0))
    settings: dict[str, Setting] = {"shape": options.shape, "layers": options.layers} if options.shape else {}
    return Job(
        path=str(path),
        digest=file_digest(path),
        works=works,
        backend=options.backend,
        threads=options.threads or n_cores,
        batch=options.batch,
        repetitions=options.repetitions,
        sustained_s=options.sustained_s,
        trace=options.trace,
        device=options.device,
        emulation=emulator.emulation if emulator else None,
        random_weights=options.shape is not None,
        settings=settings,
    )


def _run_child(job: Job, emulator: Emulator | None, progress: ReportProgress) -> Iterator[Measurement | TraceReport]:
    command = [sys.executable, "-m", "sprat.app.bench.worker"]
    with contextlib.ExitStack() as stack:
        if emulator is not None:
            drop_cached(Path(job.path))  # pages that are in memory already would be charged to nobody and cost no time
            command = stack.enter_context(emulator.limited()) + command
        pipe = subprocess.PIPE
        child = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True))
        stack.callback(child.kill)  # before the end of its `with` waits for it
        assert child.stdin is not None, "it is a pipe"
        assert child.stdout is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):  # it died at once: its status says why
            child.stdin.write(msgspec.json.encode(job) + b"\n")
            child.stdin.close()
        yield from _records(child.stdout, progress)
        _check_ending(child.wait(), emulator)


def _records(lines: IO[bytes], progress: ReportProgress) -> Iterator[Measurement | TraceReport]:
    for line in lines:
        match msgspec.json.decode(line, type=Message):
            case Working(done, total, what):
                progress(Progress(done, total, what))
            case Result(measurement):
                yield measurement
            case Traced(report):
                yield report
            case Failure(kind, text):
                raise getattr(errors, kind)(text)


def _check_ending(status: int, emulator: Emulator | None) -> None:
    if status == 0:
        return
    if emulator is not None and status == -signal.SIGKILL:
        raise EmulationError(
            f"the child was killed: {emulator.limits.memory_bytes:,} bytes of memory do not hold what cannot be "
            "dropped (cache, buffers, repacked weights); try a shorter context (-d, -p) or fewer layers"
        )
    if emulator is not None and status == 97:
        raise EmulationError("the child could not join its control group; run it as root")
    ending = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    raise BackendError(f"the process that measured ended with {ending}; try --backend reference")


def _check_is_this_machine(profile: DeviceProfile) -> None:
    """A figure says "measured on NAME" only on a machine that may be one.

    Raises:
        DeviceError: other cores, instructions or memory, all of them named.
    """
    cpu = this_cpu()
    features = {name for cores in profile.cores for name in cores.features}
    differences = []
    if cpu.n_cores != profile.n_cores:
        differences.append(f"{cpu.n_cores} cores usable, not {profile.n_cores}")
    if lacking := sorted(name for name in features if not cpu.features.get(name, False)):
        differences.append(f"no {' '.join(lacking)}")
    if not 0.8 <= memory_bytes() / profile.memory.total_bytes.value <= 1.0:
        differences.append(f"{memory_bytes():,} bytes of memory, not {profile.memory.total_bytes.value:,.0f}")
    if differences:
        raise DeviceError(
            f"this machine is no {profile.name} ({'; '.join(differences)}): add --emulate to run under its limits, "
            "or leave --device away"
        )
