"""``sprat bench --trace``: time per kernel of each test, against the peak rates of this machine."""

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
from sprat.runtime.backends.model_stream import ModelStream
from sprat.runtime.backends.registry import LoadRequest
from sprat.runtime.kernels import Kernels, ReferenceKernels
from sprat.runtime.kernels.native import NativeKernels
from sprat.runtime.kernels.rates import kernel_rates
from sprat.runtime.kernels.trace import KernelCall, TracedKernels, traced
from sprat.runtime.models import Model

__all__ = ["TraceReport", "TraceRow", "Tracer", "by_kernel", "by_layer"]

_DECODED = 16  # generated tokens per trace; times are averaged over them
_ATTENTION = ("gqa_attention", "mla_expanded", "mla_absorbed")  # computed in float32; all other products in int8


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel on one weight of one layer, per pass. A pass is the whole prompt, or one generated token."""

    kernel: str
    what: str  # the weight's role: "attn_q"
    layer: int  # -1: embedding and output head
    calls: float
    ms: float
    n_bytes: float  # read: weights and KV cache
    n_ops: float  # of matrix products


class TraceReport(msgspec.Struct, frozen=True, kw_only=True):
    """The time of one test by kernel and layer, and the peak rates to compare with."""

    trace: BenchTest
    label: str
    wall_ms: float  # of a pass: the sum of the rows, plus Python and NumPy between the kernels
    read_gbps: float  # memory bandwidth, all threads
    int8_gops: float  # peak of these kernels: 512 tokens, weights in the CPU's cache
    f32_gflops: float  # peak of attention
    rows: tuple[TraceRow, ...]

    def share(self, row: TraceRow) -> tuple[float, str]:
        """The share of the limiting rate that a row reached, and the name of that limit."""
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
    """A second instance of the model, over the same mapped weights, with kernels that are timed.

    Args:
        request: the model that was measured.
        backend: the backend that ran it.
        batch: prompt tokens per forward pass.

    Raises:
        BackendError: the backend does not use sprat's kernels.
    """

    def __init__(self, request: LoadRequest, backend: str, batch: int) -> None:
        kernels = _kernels(request, backend)
        rates = read_rates(request.n_threads, available_bytes())
        self._rates = _Rates(rates[max(rates)], kernel_rates(kernels, backend))
        self._kernels = TracedKernels(kernels)
        model = Model(request.spec, request.gguf, traced(self._kernels))
        stream = ModelStream(model, request.context, None, storage=request.spec.attention.storages[0])
        self._subject = StreamSubject(stream, request.spec.vocab_size, batch)

    def trace(self, test: BenchTest, label: str) -> TraceReport:
        """Run the test once to warm up and once to measure."""
        n_passes = min(test.n_gen, _DECODED) or 1
        self._run(test, n_passes)
        self._kernels.calls.clear()
        start = time.perf_counter()
        self._run(test, n_passes)
        wall_ms = 1e3 * (time.perf_counter() - start) / n_passes
        return TraceReport(
            trace=test,
            label=label,
            wall_ms=wall_ms,
            read_gbps=self._rates.read_bytes_per_s / 1e9,
            int8_gops=self._rates.kernels.int8_ops_per_s / 1e9,
            f32_gflops=self._rates.kernels.f32_ops_per_s / 1e9,
            rows=_rows(self._kernels.calls, n_passes),
        )

    def _run(self, test: BenchTest, n_passes: int) -> None:
        self._subject.rewind(test.depth)
        for _ in range(n_passes):
            if test.n_prompt:
                self._subject.prefill(test.n_prompt)
            else:
                self._subject.decode()


def by_kernel(report: TraceReport) -> list[TraceRow]:
    """Sums over layers, the slowest kernel first; ``layer`` is -1."""
    grouped = defaultdict(list)
    for row in report.rows:
        grouped[row.kernel, row.what].append(row)
    sums = [_sum(rows, kernel=kernel, what=what, layer=-1) for (kernel, what), rows in grouped.items()]
    return sorted(sums, key=lambda row: -row.ms)


def by_layer(report: TraceReport) -> list[TraceRow]:
    """Sums over kernels, in the order of layers; ``kernel`` and ``what`` are empty."""
    grouped = defaultdict(list)
    for row in report.rows:
        grouped[row.layer].append(row)
    return [_sum(rows, kernel="", what="", layer=layer) for layer, rows in sorted(grouped.items())]


def _kernels(request: LoadRequest, backend: str) -> Kernels:
    if backend == "native":
        return NativeKernels(request.n_threads)
    if backend == "reference":
        return ReferenceKernels(available_bytes() // 2)
    raise BackendError(f"--trace: backend {backend} does not use sprat's kernels; use --backend native")


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
