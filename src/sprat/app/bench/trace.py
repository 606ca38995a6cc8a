"""``sprat bench --trace``: one pass of each test over kernels with clocks, against what this machine can do."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sprat.app.bench.subject import StreamSubject
from sprat.devices.bench.results import BenchTest
from sprat.devices.machine import available_bytes
from sprat.devices.probe import KernelRates
from sprat.devices.probe.memory import read_rates
from sprat.errors import BackendError
from sprat.runtime.backends.reference import ReferenceStream
from sprat.runtime.backends.registry import LoadRequest
from sprat.runtime.kernels import Kernels, ReferenceKernels
from sprat.runtime.kernels.native import NativeKernels
from sprat.runtime.kernels.rates import kernel_rates
from sprat.runtime.kernels.trace import KernelCall, TracedKernels, traced
from sprat.runtime.models import Model

__all__ = ["TraceReport", "TraceRow", "Tracer", "by_kernel", "by_layer"]

_DECODED = 16  # generated tokens that a trace averages over
_ATTENTION = ("gqa_attention", "mla_expanded", "mla_absorbed")  # compute in float32; all other products in int8


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel on one weight of one layer, per pass: a whole prompt, or one generated token."""

    kernel: str
    what: str  # the weight's role: "attn_q"
    layer: int  # -1: embeddings and the head
    calls: float
    ms: float
    n_bytes: float  # of weights and cache
    n_ops: float  # of products


class TraceReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one test goes, and the rates to hold it against."""

    trace: BenchTest
    label: str
    wall_ms: float  # of a pass; more than the rows together by what Python and NumPy do between the kernels
    read_gbps: float  # memory, all threads
    int8_gops: float  # the best of these kernels: 512 tokens, weights in the cache
    f32_gflops: float  # the same of attention
    rows: tuple[TraceRow, ...]

    def share(self, row: TraceRow) -> tuple[float, str]:
        """How close a row came to the limit that holds it back: a share, and the limit's name."""
        peak = self.f32_gflops if row.kernel in _ATTENTION else self.int8_gops
        seconds = max(row.ms, 1e-9) / 1e3
        of_memory, of_compute = row.n_bytes / 1e9 / seconds / self.read_gbps, row.n_ops / 1e9 / seconds / peak
        if of_memory >= of_compute:
            return of_memory, "bandwidth"
        return of_compute, "float32" if row.kernel in _ATTENTION else "int8"


@dataclass(frozen=True, slots=True)
class _Rates:
    read_bytes_per_s: float
    kernels: KernelRates


class Tracer:
    """A second copy of the model (its weights stay in the same map) over kernels with clocks.

    Args:
        request: the model that was measured.
        backend: the backend that ran it.
        batch: tokens of a prompt that are processed at once.

    Raises:
        BackendError: the backend's kernels are not sprat's.
    """

    def __init__(self, request: LoadRequest, backend: str, batch: int) -> None:
        kernels = _kernels(request, backend)
        rates = read_rates(request.n_threads, available_bytes())
        self._rates = _Rates(rates[max(rates)], kernel_rates(kernels, backend))
        self._kernels = TracedKernels(kernels)
        model = Model(request.spec, request.gguf, traced(self._kernels))
        stream = ReferenceStream(model, request.context, None, storage=request.spec.attention.storages[0])
        self._subject = StreamSubject(stream, request.spec.vocab_size, batch)

    def trace(self, work: BenchTest, label: str) -> TraceReport:
        """Run one pass to warm up and one to measure."""
        n_passes = min(work.n_gen, _DECODED) or 1
        self._run(work, n_passes)
        self._kernels.calls.clear()
        start = time.perf_counter()
        self._run(work, n_passes)
        wall_ms = 1e3 * (time.perf_counter() - start) / n_passes
        return TraceReport(
            trace=work,
            label=label,
            wall_ms=wall_ms,
            read_gbps=self._rates.read_bytes_per_s / 1e9,
            int8_gops=self._rates.kernels.int8_ops_per_s / 1e9,
            f32_gflops=self._rates.kernels.f32_ops_per_s / 1e9,
            rows=_rows(self._kernels.calls, n_passes),
        )

    def _run(self, work: BenchTest, n_passes: int) -> None:
        self._subject.rewind(work.depth)
        for _ in range(n_passes):
            if work.n_prompt:
                self._subject.prefill(work.n_prompt)
            else:
                self._subject.decode()


def by_kernel(report: TraceReport) -> list[TraceRow]:
    """All layers together, the slowest kernel first; ``layer`` is -1."""
    grouped = defaultdict(list)
    for row in report.rows:
        grouped[row.kernel, row.what].append(row)
    sums = [_sum(rows, kernel=kernel, what=what, layer=-1) for (kernel, what), rows in grouped.items()]
    return sorted(sums, key=lambda row: -row.ms)


def by_layer(report: TraceReport) -> list[TraceRow]:
    """All kernels together, in the order of the layers; ``kernel`` and ``what`` are empty."""
    grouped = defaultdict(list)
    for row in report.rows:
        grouped[row.layer].append(row)
    return [_sum(rows, kernel="", what="", layer=layer) for layer, rows in sorted(grouped.items())]


def _kernels(request: LoadRequest, backend: str) -> Kernels:
    if backend == "native":
        return NativeKernels(request.n_threads)
    if backend == "reference":
        return ReferenceKernels(available_bytes() // 2)
    raise BackendError(f"--trace: the kernels of {backend} are not sprat's to time; use --backend native")


def _rows(calls: Iterable[KernelCall], n_passes: int) -> tuple[TraceRow, ...]:
    grouped = defaultdict(list)
    for call in calls:
        grouped[call.kernel, call.what, call.layer].append(call)
    return tuple(
        TraceRow(
            kernel=kernel,
            what=what,
            layer=layer,
            calls=len(group) / n_passes,
            ms=1e3 * sum(call.seconds for call in group) / n_passes,
            n_bytes=sum(call.n_bytes for call in group) / n_passes,
            n_ops=sum(call.n_ops for call in group) / n_passes,
        )
        for (kernel, what, layer), group in grouped.items()
    )


def _sum(rows: list[TraceRow], *, kernel: str, what: str, layer: int) -> TraceRow:
    return TraceRow(
        kernel=kernel,
        what=what,
        layer=layer,
        calls=sum(row.calls for row in rows),
        ms=sum(row.ms for row in rows),
        n_bytes=sum(row.n_bytes for row in rows),
        n_ops=sum(row.n_ops for row in rows),
    )
