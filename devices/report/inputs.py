"""Input of ``sprat report``: results of ``sprat bench``, and plans of ``sprat plan --json`` as predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sprat.devices.bench.results import BenchTest, Label, MeasuredModel, Measurement, Percentiles, read_results
from sprat.devices.plan.plan import PLAN_SCHEMA, PlanSummary, Prediction, Verdict
from sprat.devices.report.names import weight_bytes
from sprat.errors import ResultsError
from sprat.files import DocumentError, parse_json, read_input

__all__ = ["EXPERTS", "STREAMED", "Inputs", "plan_records", "read_inputs"]

EXPERTS, STREAMED = "experts", "streamed"
"""Setting of a prediction with streamed experts."""

_SLOWEST, _FASTEST = 1e-6, 1e9  # tokens per second
_MAX_ERROR = 100.0
_N_DECODE = 128  # as llama-bench's tg128; predictions are the same for any number


@dataclass(frozen=True, slots=True)
class Inputs:
    """Records, and plans of models that do not fit."""

    records: tuple[Measurement, ...]
    refused: tuple[PlanSummary, ...]


def read_inputs(paths: Iterable[Path]) -> Inputs:
    """The records and plans of the files.

    Raises:
        ResultsError: a file is missing, empty, invalid, of another version, or has neither results nor plans.
    """
    records: list[Measurement] = []
    refused: list[PlanSummary] = []
    for path in paths:
        plans = _plans(path)
        if plans is None:
            records += _plausible(read_results(path), path)
        else:
            records += _plausible(_predicted(plans, path), path)
            refused += [plan for plan in plans if plan.verdict is Verdict.TOO_LARGE]
    return Inputs(tuple(records), tuple(refused))


def _predicted(plans: list[PlanSummary], path: Path) -> list[Measurement]:
    try:
        return [record for plan in plans for record in plan_records(plan)]
    except ValueError as error:  # a plan without a device
        raise ResultsError(
            f"{path}: not a plan of sprat plan ({error}); write it again with `sprat plan --json`"
        ) from error


def plan_records(plan: PlanSummary) -> Iterator[Measurement]:
    """The predictions of a plan as records: prefill, decode at depth 0, and decode at the full context."""
    found = plan.prediction
    if found is None:
        return
    yield _record(plan, found, BenchTest.prefill(found.prompt_tokens), found.prefill_tokens_per_s)
    yield _record(plan, found, BenchTest.decode(_N_DECODE), found.decode_tokens_per_s)
    if plan.context:
        yield _record(plan, found, BenchTest.decode(_N_DECODE, plan.context), found.decode_tokens_per_s_at_context)


def _record(plan: PlanSummary, found: Prediction, test: BenchTest, speed: float) -> Measurement:
    parts = {part.name: part.size_bytes for part in plan.memory_map}
    ttft_ms = 1000 * found.ttft_s
    return Measurement(
        label=Label.PREDICTED,
        device=plan.device,
        started="",
        machine=None,
        versions={},
        model=MeasuredModel(name=plan.model, quant=plan.quant, size_bytes=weight_bytes(plan), n_params=0),
        backend="native",
        threads=plan.settings.n_threads,
        settings={} if plan.verdict is Verdict.FITS else {EXPERTS: STREAMED},
        work=test,
        samples_tps=(speed,),
        error_share=found.relative_error,
        ttft_ms=Percentiles(n=1, p50=ttft_ms, p99=ttft_ms, worst=ttft_ms) if test.n_prompt else None,
        memory_map=parts,
    )


def _plausible(records: list[Measurement], path: Path) -> list[Measurement]:
    """``records``, after a check that their values are plausible."""
    problems = [f"{record.work.test}: {problem}" for record in records for problem in _problems(record)]
    if problems:
        raise ResultsError(f"{path}: {'; '.join(problems)}; no machine gives such values: run `sprat bench` again")
    return records


def _problems(record: Measurement) -> Iterator[str]:
    low, high = min(record.samples_tps), max(record.samples_tps)
    if not _SLOWEST <= low <= high <= _FASTEST:
        yield f"{low:g} to {high:g} tokens per second, expected {_SLOWEST:g} to {_FASTEST:g}"
    if record.ttft_ms and not 0 < record.ttft_ms.p50 <= record.ttft_ms.p99 < math.inf:
        yield f"time to first token {record.ttft_ms.p50:g} ms (p50) and {record.ttft_ms.p99:g} ms (p99)"
    if record.error_share is not None and not 0 <= record.error_share <= _MAX_ERROR:
        yield f"error_share is {record.error_share:g}, expected 0 to {_MAX_ERROR:g}"


def _plans(path: Path) -> list[PlanSummary] | None:
    """The plans in a file, one object per line or one list of all; ``None`` if the file has something else."""
    try:
        lines = [line for line in read_input(path).splitlines() if line.strip()]
        values = [parse_json(line) for line in lines]
    except (OSError, DocumentError):
        return None  # read_results reports the error
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    if not flat or not all(isinstance(each, dict) and "verdict" in each for each in flat):
        return None
    if others := [each.get("schema", "none") for each in flat if each.get("schema") != PLAN_SCHEMA]:
        raise ResultsError(
            f"{path}: plans have version {others[0]}, expected {PLAN_SCHEMA}; write them again with `sprat plan --json`"
        )
    try:
        return msgspec.convert(flat, list[PlanSummary])
    except msgspec.ValidationError as error:
        raise ResultsError(
            f"{path}: not a plan of sprat plan ({error}); write it again with `sprat plan --json`"
        ) from error
