"""``sprat bench``, the parent process: prepares the job, starts the child process, and yields its records."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from sprat import errors
from sprat.app.bench.messages import Failure, Job, Message, Result, Traced, Working
from sprat.app.bench.predicted import predictions
from sprat.app.bench.trace import TraceReport
from sprat.app.demo_bundle import demo_gguf
from sprat.app.model_reference import DEMO, find_source
from sprat.boundary import public_call
from sprat.devices.affinity import default_threads
from sprat.devices.bench.digest import file_digest
from sprat.devices.bench.resources import drop_cached
from sprat.devices.bench.results import BenchTest, Measurement, Setting
from sprat.devices.cpu import this_cpu
from sprat.devices.emulate.emulate import Emulator, choose_storage, plan_emulation
from sprat.devices.machine import memory_bytes
from sprat.devices.profile import DeviceProfile, find_profile
from sprat.errors import BackendError, DeviceError, EmulationError, InputError
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.runtime.files.bundle import MANIFEST_NAME
from sprat.runtime.loading.options import LoadOptions
from sprat.runtime.open_model import open_model

__all__ = ["bench"]

_MAX_THREADS = 1024
_MAX_SECONDS = 7 * 24 * 3600  # of one sustained test


@dataclasses.dataclass(frozen=True, slots=True)
class _Subject:
    """The model to measure; :func:`bench` documents the fields."""

    model: str | os.PathLike[str] | None
    preset: str | None
    quant: str
    layers: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Options:
    """The other arguments of :func:`bench`, which documents them."""

    n_prompt: Sequence[int]
    n_gen: Sequence[int]
    depths: Sequence[int]
    repetitions: int
    threads: int | None
    batch: int | None
    backend: str
    provider: str | None
    storage: str | None
    sustained_s: float
    trace: bool


@public_call
def bench(
    model: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    quant: str = "Q4_0",
    layers: int | None = None,
    n_prompt: Sequence[int] = (512,),
    n_gen: Sequence[int] = (128,),
    depths: Sequence[int] = (0,),
    repetitions: int = 5,
    threads: int | None = None,
    batch: int | None = None,
    backend: str = "auto",
    provider: str | None = None,
    device: str | None = None,
    emulate: bool = False,
    storage: str | None = None,
    sustained_s: float = 0.0,
    trace: bool = False,
    progress: ReportProgress = no_progress,
) -> Iterator[Measurement | TraceReport]:
    """Measure the speed of a model, as llama-bench does, in a child process.

    Args:
        model: a bundle, a model file, or ``"demo"``, the packaged student in int4; or else ``preset``.
        preset: a published model, such as ``"deepseek-v2-lite"``, whose dimensions get random weights; the file is
            kept in the user's cache folder.
        quant: block format or recipe of that file.
        layers: number of layers of that file; all by default.
        n_prompt: prompt lengths in tokens, one prefill test each; 0 for none.
        n_gen: numbers of generated tokens, one decode test each; 0 for none.
        depths: tokens in the KV cache before each test.
        repetitions: samples per test.
        threads: by default one per usable core, or per core of the emulated device.
        batch: prompt tokens per forward pass; by default the engine's choice.
        backend: ``"auto"``, or a name that ``sprat doctor`` lists.
        provider: of onnxruntime, as for :func:`sprat.load`.
        device: the profile of this machine, or with ``emulate`` of the device to emulate.
        emulate: run under the device's cores, memory and storage speed (cgroups; needs root).
        storage: the device's storage that holds the model; by default its fastest.
        sustained_s: seconds to keep each test running, to compare its last speed with its first.
        trace: also time every kernel.
        progress: called before each test, in tests.

    Returns:
        An iterator that runs the tests: a :class:`Measurement` for each, then with ``trace`` a :class:`TraceReport`
        for each. Under emulation with the native backend, predicted records follow.

    Raises:
        InputError: the model, the preset, a test or the device cannot be used.
        EmulationError: the device's limits cannot be set here, or the child process was killed by them.
        BackendError: the backend cannot run the model, or crashed.
        ExportError: the random weights do not fit on the disk.
    """
    subject = _Subject(model, preset, quant, layers)
    options = _Options(
        n_prompt, n_gen, depths, repetitions, threads, batch, backend, provider, storage, sustained_s, trace
    )
    return _start(subject, options, device, emulate=emulate, progress=progress)


def _start(
    subject: _Subject, options: _Options, device: str | None, *, emulate: bool, progress: ReportProgress
) -> Iterator[Measurement | TraceReport]:
    """Check the arguments before the iterator is handed out, and write random weights where they are needed."""
    _check_options(options)
    tests = _tests(options)
    profile = find_profile(device) if device else None
    if profile is not None and not emulate:
        _check_is_this_machine(profile)
    elif profile is None and emulate:
        raise InputError("--emulate: no device was named; add --device NAME (see: sprat devices)")
    load = LoadOptions(backend=options.backend, provider=options.provider)
    settings = load.provider_settings(profile.accelerator if profile else None)
    path = _file(subject, load.backend_name, progress)
    job = msgspec.structs.replace(_job(subject, options, tests, path, device), provider=settings)
    if profile is None or not emulate:
        return _run_child(job, None, progress)
    return _emulated(job, profile, options, progress)


def _check_options(options: _Options) -> None:
    """Raise InputError for values out of their range; all of them are named."""
    holds = {
        f"repetitions is {options.repetitions}, expected at least 1": options.repetitions >= 1,
        f"threads is {options.threads}, expected 1 to {_MAX_THREADS}, or None": (
            options.threads is None or 1 <= options.threads <= _MAX_THREADS
        ),
        f"batch is {options.batch}, expected at least 1, or None": options.batch is None or options.batch >= 1,
        f"sustained_s is {options.sustained_s}, expected seconds from 0 to {_MAX_SECONDS}": (
            0 <= options.sustained_s <= _MAX_SECONDS
        ),
    }
    if problems := [text for text, is_right in holds.items() if not is_right]:
        raise InputError("; ".join(problems))


def _emulated(
    job: Job, profile: DeviceProfile, options: _Options, progress: ReportProgress
) -> Iterator[Measurement | TraceReport]:
    """Records measured under the device's limits, then the planner's predictions for the same tests."""
    storage = choose_storage(profile, options.storage)
    emulator = plan_emulation(profile, storage, Path(job.path))
    threads = options.threads or len(emulator.limits.cores)
    job = msgspec.structs.replace(job, threads=threads, emulation=emulator.emulation)
    records = []
    for record in _run_child(job, emulator, progress):
        records.append(record)
        yield record
    emulated = [record for record in records if isinstance(record, Measurement)]
    if emulated and emulated[0].backend == "native":  # predictions are fitted to it
        yield from predictions(emulated, job.path, profile, storage)


def _tests(options: _Options) -> tuple[BenchTest, ...]:
    """llama-bench's order: all prompts, then all generations, for each depth."""
    sizes = {"-p": options.n_prompt, "-n": options.n_gen, "-d": options.depths}
    if wrong := [f"{name} {size}" for name, values in sizes.items() for size in values if size < 0]:
        raise InputError(f"{', '.join(wrong)}: expected numbers of tokens of at least 0")
    tests = [
        make(size, depth)
        for depth in sorted(options.depths)
        for make, values in ((BenchTest.prefill, options.n_prompt), (BenchTest.decode, options.n_gen))
        for size in values
        if size
    ]
    if not tests:
        raise InputError("no test to run: give -p or -n a number of tokens above 0, and -d at least one depth")
    return tuple(tests)


def _file(subject: _Subject, backend: str, progress: ReportProgress) -> Path:
    if (subject.model is None) == (subject.preset is None):
        raise InputError("give either a MODEL (a bundle or a model file) or --shape NAME (random weights)")
    if subject.model == DEMO:
        return demo_gguf("int4")
    if subject.model is not None:
        path = find_source(subject.model)
        if path.is_dir() and not (path / MANIFEST_NAME).exists():
            raise InputError(f"{subject.model}: not a bundle; export it first:  sprat export {subject.model} OUT")
        return open_model(path, backend).file.path  # its header is checked before a child process is started
    from sprat.export.gguf.random_weights import cached_preset

    assert subject.preset is not None, "one of the two is given"
    return cached_preset(
        subject.preset,
        subject.quant,
        subject.layers,
        progress=lambda state: progress(dataclasses.replace(state, what=f"writing random weights: {state.what}")),
    )


def _job(subject: _Subject, options: _Options, tests: tuple[BenchTest, ...], path: Path, device: str | None) -> Job:
    """The tests on this machine; :func:`_emulated` adds limits."""
    settings: dict[str, Setting] = {"shape": subject.preset, "layers": subject.layers} if subject.preset else {}
    if options.provider:
        settings["provider"] = options.provider
    return Job(
        path=str(path),
        digest=file_digest(path),
        tests=tests,
        backend="onnx" if options.provider else options.backend,
        threads=options.threads or default_threads().count,
        batch=options.batch,
        repetitions=options.repetitions,
        sustained_s=options.sustained_s,
        trace=options.trace,
        device=device,
        emulation=None,
        random_weights=subject.preset is not None,
        settings=settings,
    )


def _run_child(job: Job, emulator: Emulator | None, progress: ReportProgress) -> Iterator[Measurement | TraceReport]:
    command = [sys.executable, "-P", "-m", "sprat.app.bench.worker"]
    with contextlib.ExitStack() as stack:
        if emulator is not None:
            drop_cached(Path(job.path))  # pages in the page cache would count against no limit and cost no time
            command = stack.enter_context(emulator.limited()) + command
        pipe = subprocess.PIPE
        child = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True))
        stack.callback(child.kill)  # runs before its own __exit__, which waits for it
        assert child.stdin is not None, "it is a pipe"
        assert child.stdout is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):  # the child exited at once; its status says why
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
            f"the child process was killed: {emulator.limits.memory_bytes:,} bytes do not hold the cache, buffers and "
            "repacked weights, which must stay in memory; try a shorter context (-d, -p) or fewer layers"
        )
    if emulator is not None and status == 97:
        raise EmulationError("the child process could not join its control group; run sprat as root")
    ending = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    raise BackendError(f"the measuring process ended with {ending}; try --backend reference")


def _check_is_this_machine(profile: DeviceProfile) -> None:
    """Check that results may be labelled as measured on ``profile``.

    Raises:
        DeviceError: this machine has other cores, instructions or memory; the message lists all differences.
    """
    cpu = this_cpu()
    features = {name for cores in profile.cores for name in cores.features}
    differences = []
    if cpu.n_cores != profile.n_cores:
        differences.append(f"{cpu.n_cores} cores usable, not {profile.n_cores}")
    if missing := sorted(name for name in features if not cpu.features.get(name, False)):
        differences.append(f"no {' '.join(missing)}")
    if not 0.8 <= memory_bytes() / profile.memory.total_bytes.value <= 1.0:
        differences.append(f"{memory_bytes():,} bytes of memory, not {profile.memory.total_bytes.value:,.0f}")
    if differences:
        raise DeviceError(
            f"this machine is not a {profile.name} ({'; '.join(differences)}): add --emulate to run under its limits, "
            "or omit --device"
        )
