"""The child process of a benchmark: it loads the model, runs the tests and writes the results.

``python -m sprat.app.bench.worker`` reads its job from standard input.

A separate process, so that peak memory is the model's alone, a device's limits apply to nothing else, and a backend
that crashes does not take the command down.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import math
import os
import platform
import signal
import sys
import time
from collections import Counter
from typing import BinaryIO

import msgspec

from sprat.app.bench.messages import Failure, Job, Message, Result, Traced, Working
from sprat.app.bench.routing import RoutingEntropy
from sprat.app.bench.subject import StreamSubject
from sprat.app.bench.trace import Tracer
from sprat.devices.bench.procedure import Bench, Procedure, Setup
from sprat.devices.bench.results import Label, MeasuredModel, Measurement
from sprat.devices.plan.footprint import Footprint
from sprat.devices.profile import find_profile
from sprat.errors import SpratError
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.backends.registry import LoadRequest, choose, chosen_footprint, open_backend
from sprat.runtime.loading.limits import load_limits
from sprat.runtime.open_model import OpenModel, open_model

__all__ = ["run_job"]

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBRARIES = {"llamacpp": "llama-cpp-python", "onnx": "onnxruntime"}


def run_job(job: Job, out: BinaryIO) -> None:
    """Run every test of ``job`` and write a message per line to ``out``."""
    try:
        _run(job, out)
    except SpratError as error:
        _send(out, Failure(type(error).__name__, str(error)))


def _run(job: Job, out: BinaryIO) -> None:
    _send(out, Working(0, len(job.tests), "loading"))
    started = time.perf_counter()
    model = open_model(job.path, job.backend)
    capacity = max(test.depth + test.n_tokens for test in job.tests)
    device = job.device if job.emulation else None
    limits = load_limits(model, device=device, context=capacity, force=True)  # as the engine loads it on the device
    batch = job.batch or limits.batch
    request = LoadRequest(
        file=model.file,
        spec=model.spec,
        context=capacity,
        batch=batch,
        n_threads=job.threads,
        streams=limits.streams,
        provider=job.provider,
    )
    choice = choose(job.backend, request)
    backend = open_backend(choice, request)
    routing = RoutingEntropy()
    observed = job.random_weights and model.spec.moe is not None
    stream = backend.new_stream(capacity, routing if observed else None)
    subject = StreamSubject(stream, backend.vocab_size, batch)
    load_ms = 1e3 * (time.perf_counter() - started)
    setup = _setup(job, model, chosen_footprint(choice, request), choice.name, batch, load_ms)
    bench = Bench(subject, setup, Procedure(repetitions=job.repetitions, sustained_s=job.sustained_s))
    sustained = f", then for {job.sustained_s:.0f} s" if job.sustained_s else ""
    for done, test in enumerate(job.tests):
        _send(out, Working(done, len(job.tests), test.test + sustained))
        _send(out, Result(_with_routing(bench.measure(test), routing, model.spec)))
    if job.trace:
        tracer = Tracer(request, choice.name, batch)
        for test in job.tests:
            _send(out, Traced(tracer.trace(test, setup.label)))
    _send(out, Working(len(job.tests), len(job.tests), "done"))


def _with_routing(record: Measurement, routing: RoutingEntropy, spec: ModelSpec) -> Measurement:
    share = routing.share(spec.moe.n_routed_experts) if spec.moe else None
    if share is None:
        return record
    note = f"random weights: routing entropy is {share:.0%} of uniform so far"
    return msgspec.structs.replace(record, notes=(*record.notes, note))


def _setup(job: Job, model: OpenModel, footprint: Footprint, backend: str, batch: int, load_ms: float) -> Setup:
    parts = {
        "resident weights": footprint.resident_bytes,
        "experts": footprint.routed_bytes,
        "cache": footprint.cache_bytes,
        "buffers": footprint.buffer_bytes,
    }
    return Setup(
        model=_measured_model(job, model),
        backend=backend,
        threads=job.threads,
        path=model.file.path,
        label=Label.EMULATED if job.emulation else Label.MEASURED,
        device=find_profile(job.device).name if job.device else None,
        versions=_versions(backend),
        settings={"batch": batch, "context": footprint.context, "repetitions": job.repetitions} | job.settings,
        memory_map={name: size for name, size in parts.items() if size},
        load_ms=load_ms,
        emulation=job.emulation,
    )


def _measured_model(job: Job, model: OpenModel) -> MeasuredModel:
    """``quant`` is the format with the most bytes."""
    sizes: Counter[str] = Counter()
    for tensor in model.file.tensors.values():
        sizes[tensor.type_name] += tensor.nbytes
    return MeasuredModel(
        name=model.name,
        quant=sizes.most_common(1)[0][0],
        size_bytes=sizes.total(),
        n_params=sum(map(math.prod, expected_tensors(model.spec).values())),
        digest=job.digest,
        random_weights=job.random_weights,
    )


def _versions(backend: str) -> dict[str, str]:
    packages = ["sprat", "numpy", *([_LIBRARIES[backend]] if backend in _LIBRARIES else [])]
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _send(out: BinaryIO, message: Message) -> None:
    out.write(msgspec.json.encode(message) + b"\n")
    out.flush()


def _main() -> None:
    """Read the job from standard input. Libraries print to standard error; standard output is for messages."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # do not outlive the parent
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    run_job(msgspec.json.decode(sys.stdin.buffer.readline(), type=Job), out)


if __name__ == "__main__":
    _main()
