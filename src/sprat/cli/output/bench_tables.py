"""Results of ``sprat bench`` as tables and CSV: llama-bench's table, then latency, memory, storage and temperature."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence

import click

from sprat.app.bench.speculation import SpeculationSpeed
from sprat.app.bench.trace import TraceReport, TraceRow, by_kernel, by_layer
from sprat.cli.output.terminal import print_table
from sprat.devices.bench.compare import Comparison
from sprat.devices.bench.results import Label, Measurement, Moment, Percentiles
from sprat.runtime.kernels.trace import NO_LAYER
from sprat.text import human_bytes

__all__ = ["csv_text", "print_comparison", "print_details", "print_speculation", "print_speeds", "print_trace"]

_NONE = "-"  # not available on this machine


def print_speeds(records: Sequence[Measurement], *, markdown: bool = False) -> None:
    """llama-bench's table, with one column of speeds per label."""
    labels = list(dict.fromkeys(record.label_text for record in records))
    tests: dict[tuple[object, ...], dict[str, str]] = {}
    for record in records:
        row = (
            f"{record.model.name} {record.model.quant}",
            human_bytes(record.model.size_bytes),
            _params(record.model.n_params),
            record.backend,
            record.threads,
            record.work.test,
        )
        tests.setdefault(row, {})[record.label_text] = _speed(record)
    columns = ("model", "size", "params", "backend", "threads", "test", *(f"t/s, {label}" for label in labels))
    print_table(
        columns,
        [(*row, *(speeds.get(label, _NONE) for label in labels)) for row, speeds in tests.items()],
        markdown=markdown,
    )


def print_details(records: Sequence[Measurement], *, markdown: bool = False) -> None:
    """Values that llama-bench does not print; columns without any value are omitted."""
    columns = (
        "test",
        "TTFT, ms (p50 / p99)",
        "inter-token, ms (p50 / p99 / max)",
        "peak RSS",
        "page cache",
        "read from storage",
        "°C",
        "GHz",
        "throttled",
        "J/token",
        "t/s, first -> sustained",
    )
    rows = [_details(record) for record in records if record.label is not Label.PREDICTED]
    shown = [index for index in range(len(columns)) if any(row[index] != _NONE for row in rows)]
    print_table(
        [columns[index] for index in shown], [[row[index] for index in shown] for row in rows], markdown=markdown
    )


def print_comparison(comparisons: Sequence[Comparison], confidence: float) -> None:
    """Both speeds, their ratio with its confidence interval, and the verdict."""
    label = comparisons[0].before.label
    rows = [
        (
            pair.before.work.test,
            _speed(pair.before),
            _speed(pair.after),
            f"{pair.ratio.value:.3f}",
            f"{pair.ratio.low:.3f} to {pair.ratio.high:.3f}",
            pair.verdict,
        )
        for pair in comparisons
    ]
    interval = f"{confidence:.0%} interval"
    print_table(("test", f"first, t/s {label}", f"second, t/s {label}", "ratio", interval, "second is"), rows)


def print_trace(report: TraceReport, *, markdown: bool = False) -> None:
    """Milliseconds per kernel and per layer, and the share of the limiting rate that each reached."""
    kernels_ms = sum(row.ms for row in report.rows)
    click.echo(
        f"{report.trace.test}, {report.label}: {report.wall_ms:.2f} ms per pass, {kernels_ms:.2f} in kernels; 100 % is "
        f"{report.read_gbps:.1f} GB/s of memory, {report.int8_gops:.0f} GOP/s int8 and {report.f32_gflops:.0f} GFLOP/s "
        "float32, the peaks of these kernels on this machine"
    )
    print_table(
        ("kernel", "weights", "calls", "ms", "share", "MB read", "GB/s", "GOP/s", "reached"),
        [(row.kernel, row.what or _NONE, f"{row.calls:.0f}", *_trace_cells(report, row)) for row in by_kernel(report)],
    )
    print_table(
        ("layer", "calls", "ms", "share", "MB read", "GB/s", "GOP/s", "reached"),
        [
            ("ends" if row.layer == NO_LAYER else str(row.layer), f"{row.calls:.0f}", *_trace_cells(report, row))
            for row in by_layer(report)
        ],
        markdown=markdown,
    )


def print_speculation(speeds: Sequence[SpeculationSpeed]) -> None:
    """Tokens per second without and with drafts, for each kind of answers."""
    print_table(
        ("answers", "tokens", "t/s without drafts", "t/s with", "ratio", "drafts", "right"),
        [
            (
                speed.answers,
                f"{speed.tokens:,}",
                f"{speed.plain_per_second:.1f}",
                f"{speed.per_second:.1f}",
                f"{speed.ratio:.2f}",
                f"{speed.draft_n:,}",
                f"{speed.draft_n_accepted:,}",
            )
            for speed in speeds
        ],
    )


def csv_text(records: Sequence[Measurement]) -> str:
    """One line per record, in the units that the column names state; empty where a value is not available."""
    out = io.StringIO()
    rows = [_csv_row(record) for record in records]
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _trace_cells(report: TraceReport, row: TraceRow) -> tuple[str, ...]:
    seconds = max(row.ms, 1e-9) / 1e3
    share, limit = report.share(row)
    return (
        f"{row.ms:.3f}",
        f"{row.ms / report.wall_ms:.1%}",
        f"{row.n_bytes / 1e6:.2f}",
        f"{row.n_bytes / 1e9 / seconds:.1f}",
        f"{row.n_ops / 1e9 / seconds:.0f}",
        f"{share:.0%} {limit}" if row.n_bytes else _NONE,
    )


def _csv_row(record: Measurement) -> dict[str, object]:
    ttft, between, sustained = record.ttft_ms, record.inter_token_ms, record.sustained
    return {
        "model": record.model.name,
        "quant": record.model.quant,
        "size_bytes": record.model.size_bytes,
        "n_params": record.model.n_params,
        "backend": record.backend,
        "threads": record.threads,
        "test": record.work.test,
        "label": record.label,
        "device": record.device,
        "mean_tps": record.mean_tps,
        "stdev_tps": _stdev(record),
        "ttft_p50_ms": ttft and ttft.p50,
        "ttft_p99_ms": ttft and ttft.p99,
        "inter_token_p50_ms": between and between.p50,
        "inter_token_p99_ms": between and between.p99,
        "inter_token_worst_ms": between and between.worst,
        "peak_rss_bytes": record.peak_rss_bytes,
        "page_cache_bytes": record.page_cache_bytes,
        "storage_read_bytes": record.storage_read_bytes,
        "temperature_before_c": record.before and record.before.temperature_c,
        "temperature_after_c": record.after and record.after.temperature_c,
        "throttled": record.throttled,
        "joules_per_token": record.joules_per_token,
        "first_tps": sustained and sustained.first_tps,
        "sustained_tps": sustained and sustained.sustained_tps,
        "notes": "; ".join(record.notes),
    }


def _details(record: Measurement) -> tuple[str, ...]:
    sustained = record.sustained
    return (
        record.work.test,
        _times(record.ttft_ms, "p50", "p99"),
        _times(record.inter_token_ms, "p50", "p99", "worst"),
        _bytes(record.peak_rss_bytes),
        _bytes(record.page_cache_bytes),
        _bytes(record.storage_read_bytes),
        _change(record.before, record.after, "temperature_c", ".0f"),
        _change(record.before, record.after, "clock_ghz", ".2f"),
        _NONE if record.throttled is None else ("yes" if record.throttled else "no"),
        _NONE if record.joules_per_token is None else f"{record.joules_per_token:.3g}",
        f"{sustained.first_tps:.2f} -> {sustained.sustained_tps:.2f}" if sustained else _NONE,
    )


def _speed(record: Measurement) -> str:
    if record.error_share is not None:
        return f"{record.mean_tps:.2f} ± {record.mean_tps * record.error_share:.2f}"
    return f"{record.mean_tps:.2f} ± {_stdev(record):.2f}"


def _stdev(record: Measurement) -> float:
    return statistics.stdev(record.samples_tps) if len(record.samples_tps) > 1 else 0.0


def _params(n_params: int) -> str:
    return f"{n_params / 1e9:.2f} B" if n_params >= 1e9 else f"{n_params / 1e6:.2f} M"


def _times(times: Percentiles | None, *names: str) -> str:
    return " / ".join(f"{getattr(times, name):.1f}" for name in names) if times else _NONE


def _bytes(n_bytes: int | None) -> str:
    return _NONE if n_bytes is None else human_bytes(n_bytes)


def _change(before: Moment | None, after: Moment | None, name: str, spec: str) -> str:
    values = [getattr(moment, name) for moment in (before, after) if moment is not None]
    known = [format(value, spec) for value in values if value is not None]
    return " -> ".join(dict.fromkeys(known)) or _NONE
