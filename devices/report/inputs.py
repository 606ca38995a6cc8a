"""What ``sprat report`` reads: results of ``sprat bench``, and plans of ``sprat plan --json`` as predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sprat.devices.bench.results import Label, MeasuredModel, Measurement, Percentiles, Work, read_results
from sprat.devices.plan.plan import PLAN_SCHEMA, PlanSummary, Prediction, Verdict
from sprat.devices.report.names import weight_bytes
from sprat.errors import ResultsError

__all__ = ["EXPERTS", "STREAMED", "Inputs", "plan_records", "read_inputs"]

EXPERTS, STREAMED = "experts", "streamed"
"""The setting of a prediction that reads experts from storage."""

_SLOWEST, _FASTEST = 1e-6, 1e9  # tokens per second
_MOST_ERROR = 100.0
_DECODED = 128  # tokens, as llama-bench's tg128; a prediction holds for any number


@dataclass(frozen=True, slots=True)
class Inputs:
    """Records, and the plans that say that a model does not fit."""

    records: tuple[Measurement, ...]
    refused: tuple[PlanSummary, ...]


def read_inputs(paths: Iterable[Path]) -> Inputs:
    """All that the files hold.

    Raises:
        ResultsError: a file is missing, empty, damaged, of another version, or neither results nor plans.
    """
    records: list[Measurement] = []
    refused: list[PlanSummary] = []
    for path in paths:
        plans = _plans(path)
        if plans is None:
            records += _plausible(read_results(path), path)
        else:
            records += [record for plan in plans for record in plan_records(plan)]
            refused += [plan for plan in plans if plan.verdict is Verdict.TOO_LARGE]
    return Inputs(tuple(records), tuple(refused))


def plan_records(plan: PlanSummary) -> Iterator[Measurement]:
    """The predictions of a plan as records: the prompt, and decoding behind an empty and a full context."""
    found = plan.prediction
    if found is None:
        return
    yield _record(plan, found, Work.prefill(found.prompt_tokens), found.prefill_tokens_per_s)
    yield _record(plan, found, Work.decode(_DECODED), found.decode_tokens_per_s)
    if plan.context:
        yield _record(plan, found, Work.decode(_DECODED, plan.context), found.decode_tokens_per_s_at_context)


def _record(plan: PlanSummary, found: Prediction, work: Work, speed: float) -> Measurement:
    parts = {part.name: part.size_bytes for part in plan.memory_map}
    wait_ms = 1000 * found.ttft_s
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
        work=work,
        samples_tps=(speed,),
        error_share=found.relative_error,
        ttft_ms=Percentiles(n=1, p50=wait_ms, p99=wait_ms, worst=wait_ms) if work.n_prompt else None,
        memory_map=parts,
    )


def _plausible(records: list[Measurement], path: Path) -> list[Measurement]:
    """``records``, whose figures can be drawn."""
    problems = [f"{record.work.test}: {problem}" for record in records for problem in _problems(record)]
    if problems:
        raise ResultsError(f"{path}: {'; '.join(problems)}; no machine measures that: make it again with `sprat bench`")
    return records


def _problems(record: Measurement) -> Iterator[str]:
    low, high = min(record.samples_tps), max(record.samples_tps)
    if not _SLOWEST <= low <= high <= _FASTEST:
        yield f"{low:g} to {high:g} tokens per second, expected {_SLOWEST:g} to {_FASTEST:g}"
    if record.ttft_ms and not 0 < record.ttft_ms.p50 <= record.ttft_ms.p99 < math.inf:
        yield f"first token after {record.ttft_ms.p50:g} ms (p50) and {record.ttft_ms.p99:g} ms (p99)"
    if record.error_share is not None and not 0 <= record.error_share <= _MOST_ERROR:
        yield f"an error of {record.error_share:g}, expected a share from 0 to {_MOST_ERROR:g}"


def _plans(path: Path) -> list[PlanSummary] | None:
    """The plans in a file, one object a line or all of them in one list; ``None`` where it holds something else."""
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
        values = [msgspec.json.decode(line) for line in lines]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None  # the reader of results says what is wrong
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    if not flat or not all(isinstance(each, dict) and "verdict" in each for each in flat):
        return None
    if others := [each.get("schema", "none") for each in flat if each.get("schema") != PLAN_SCHEMA]:
        raise ResultsError(
            f"{path}: plans of version {others[0]}, expected {PLAN_SCHEMA}; make them again with `sprat plan --json`"
        )
    try:
        return msgspec.convert(flat, list[PlanSummary])
    except msgspec.ValidationError as error:
        raise ResultsError(f"{path}: no plans of this sprat ({error}); make them with `sprat plan --json`") from error
