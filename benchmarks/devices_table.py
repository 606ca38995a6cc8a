"""Writes docs/devices.md: what ``sprat plan`` predicts for all models and devices, and what was measured where.

sprat bench OUT -p 512 -n 128 -d 0,4096 -o measured.jsonl
python benchmarks/devices_table.py docs/devices.md --measured measured.jsonl
"""

from __future__ import annotations

import argparse
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sprat.app.plan import plan_model
from sprat.devices.bench.results import Label, Measurement, read_results
from sprat.devices.plan.efficiency import Provenance, load_calibration
from sprat.devices.plan.plan import Plan, Verdict
from sprat.devices.report.charts.stacks import gibibytes
from sprat.devices.report.files import write_whole
from sprat.devices.report.names import ModelNames
from sprat.runtime.arch.presets import shape_names
from sprat.text import format_number

_STUDENT = "demo"
_INTRO = """\
# Devices

Whether a model fits a device, and how fast it is there. Made by `python benchmarks/devices_table.py
docs/devices.md`; do not edit. Every column holds figures of one kind: **predicted** (a roofline over the
profile's figures, see `sprat devices show NAME`; nothing ran), **measured** (on the machine that the row names)
or **emulated** (on another machine, under the device's limits). For your own model or context: `sprat plan MODEL
--all`, and `sprat report` draws it.

{accuracy}

## Tokens per second, predicted

Writing behind an empty context, with the best quantization (int8, else int4) that fits with room for {context:,}
tokens; the fastest device for the smallest model first. `~`: experts that do not fit are read from storage
meanwhile. `-`: does not fit. `{student}` is the packaged student.
"""
_DETAILS = ("device", "quant", "verdict", "needs", "first token, predicted", "tokens/s, predicted", "± %", "limited by")
_RUNS = ("model", "machine", "backend", "threads", "test", "tokens/s, {0}", "first token p50, {0}", "peak memory, {0}")


def document(plans: dict[str, list[Plan]], results: Sequence[Measurement]) -> Iterator[str]:
    """The lines of docs/devices.md.

    Args:
        plans: of each model, one per device, the devices in the same order.
        results: what ran; predictions among them are left out.
    """
    somewhere = {model: rows for model, rows in plans.items() if any(plan.runs for plan in rows)}
    context = next(iter(plans.values()))[0].footprint.context
    accuracy = _accuracy(load_calibration().provenance)
    yield from _INTRO.format(context=context, student=_STUDENT, accuracy=accuracy).splitlines()
    yield ""
    yield from _markdown(("device", *somewhere), list(_overview(somewhere)))
    for model in sorted(plans.keys() - somewhere.keys()):
        nearest = min(plans[model], key=lambda plan: plan.missing_bytes)
        lack = gibibytes(nearest.missing_bytes)
        yield f"\n`{model}` fits none of them; {nearest.profile.name} comes nearest and lacks {lack}."
    for label in (Label.MEASURED, Label.EMULATED):
        ran = [record for record in results if record.label is label]
        if ran:
            yield f"\n## {label.capitalize()}\n"
            columns = tuple(column.format(label) for column in _RUNS)
            yield from _markdown(columns, [_run_row(record) for record in ran])
            yield from _reservations(ran)
    for model, rows in somewhere.items():
        yield f"\n## {model}, predicted\n"
        yield from _markdown(_DETAILS, [_plan_row(plan) for plan in rows])


def _accuracy(provenance: Provenance) -> str:
    """How far predictions were off where that is known."""
    fitted = (
        f"The factors behind predictions were fitted on {provenance.date} to {len(provenance.cases)} kinds of passes "
        f"on {provenance.machine}; of these they miss the median by {provenance.median_error:.1%}, the worst by "
        f"{provenance.worst_error:.1%}."
    )
    check = provenance.check
    later = (
        f" Of {check.cases} passes in a later run, which they were not fitted to, they miss the median by "
        f"{check.median_error:.1%}, the worst by {check.worst_error:.1%}."
        if check
        else ""
    )
    others = " On other machines nobody has checked them: each prediction states the error to expect there."
    return "\n".join(textwrap.wrap(fitted + later + others, 115))


def _overview(plans: dict[str, list[Plan]]) -> Iterator[tuple[str, ...]]:
    for row in sorted(zip(*plans.values(), strict=True), key=lambda row: -_decode(row[0])):
        yield f"{row[0].profile.title} (`{row[0].profile.name}`)", *(_speed(plan) for plan in row)


def _decode(plan: Plan) -> float:
    return plan.prediction.decode_tokens_per_s if plan.prediction else 0.0


def _speed(plan: Plan) -> str:
    if plan.prediction is None:
        return "-"
    mark = "~" if plan.verdict is Verdict.STREAMED else ""
    return f"{mark}{format_number(plan.prediction.decode_tokens_per_s)}"


def _plan_row(plan: Plan) -> tuple[str, ...]:
    found = plan.prediction
    lack = f" by {gibibytes(plan.missing_bytes)}" if plan.missing_bytes else ""
    common = (plan.profile.name, plan.footprint.quant, f"{plan.verdict}{lack}", gibibytes(plan.footprint.total_bytes))
    if found is None:
        return (*common, "-", "-", "-", "-")
    speed, error = format_number(found.decode_tokens_per_s), f"{100 * found.relative_error:.0f}"
    return (*common, f"{format_number(found.ttft_s)} s", speed, error, found.decode_limit)


def _name(record: Measurement) -> str:
    return ModelNames([record], []).of_record(record).title


def _run_row(record: Measurement) -> tuple[str, ...]:
    machine, samples = record.machine, record.samples_tps
    place = f"{record.device or 'this machine'} ({machine.processor if machine else 'unknown'})"
    spread = f" ± {format_number(statistics.stdev(samples))}" if len(samples) > 1 else ""
    return (
        _name(record),
        place,
        record.backend,
        str(record.threads),
        record.work.test,
        f"{format_number(record.mean_tps)}{spread}",
        f"{format_number(record.ttft_ms.p50)} ms" if record.ttft_ms else "-",
        gibibytes(record.peak_rss_bytes) if record.peak_rss_bytes else "-",
    )


def _reservations(ran: Sequence[Measurement]) -> Iterator[str]:
    """What speaks against the figures: a busy machine, samples that spread, limits that could not be set."""
    notes = [f"- {_cell(f'{_name(record)}, {record.work.test}: {note}')}" for record in ran for note in record.notes]
    unset = [sentence for record in ran if record.emulation for sentence in record.emulation.not_emulated]
    notes += [f"- not emulated: {_cell(sentence)}" for sentence in dict.fromkeys(unset)]
    if notes:
        yield from ("", "With reservations:", "", *notes)


def _markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(columns)
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(_cell(text) for text in row)} |"


def _cell(text: str) -> str:
    """``text`` on one line, without what ends a cell or begins a tag."""
    return " ".join(text.replace("|", "¦").replace("<", "‹").split())


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--measured", type=Path, nargs="*", default=[], help="files of `sprat bench -o`")
    arguments = parser.parse_args()
    plans = {model: plan_model(model) for model in (_STUDENT, *shape_names())}
    order = sorted(plans, key=lambda model: plans[model][0].footprint.weight_bytes)
    results = [record for path in arguments.measured for record in read_results(path)]
    text = "\n".join(document({model: plans[model] for model in order}, results))
    write_whole(arguments.path, f"{text}\n".encode())
    print(f"{arguments.path}: {len(plans)} models on {len(plans[_STUDENT])} devices, {len(results)} results")


if __name__ == "__main__":
    _main()
