"""``sprat bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sprat.app.bench import BenchOptions, bench
from sprat.app.bench.trace import TraceReport
from sprat.cli.bench_tables import csv_text, print_comparison, print_details, print_speeds, print_trace
from sprat.cli.terminal import print_json, progress_bar
from sprat.devices.bench.compare import compare, differences
from sprat.devices.bench.results import Measurement, check_place, gather_notes, read_results, write_results
from sprat.text import human_bytes

__all__ = ["command"]

_CONFIDENCE = 0.95
_MOST_NAMED = 4  # tests before a note
_EXAMPLES = """\b
Examples:
  sprat bench OUT -p 512 -n 128 -d 0,4096
  sprat bench --shape deepseek-v2-lite --layers 6 --device rpi5-8gb --emulate --json
  sprat bench OUT --sustained 300 -o results.jsonl
  sprat bench --compare before.jsonl after.jsonl
"""


def _counts(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    """Numbers separated by commas, as llama-bench takes them."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(f"{text!r}: expected numbers of tokens separated by commas, for example 0,4096")
    return tuple(int(part) for part in parts)


@click.command(epilog=_EXAMPLES)
@click.argument("model", required=False)
@click.option("--shape", help="Measure a published model's shape with random weights; written to a cache at first.")
@click.option(
    "--quant", default="Q4_0", show_default=True, help="Of --shape: a block format, or a recipe such as int4."
)
@click.option("--layers", type=click.IntRange(min=1), help="Of --shape: only this many layers.")
@click.option(
    "-p", "--n-prompt", callback=_counts, default="512", show_default=True, help="Prompts to process; 0: none."
)
@click.option("-n", "--n-gen", callback=_counts, default="128", show_default=True, help="Tokens to generate; 0: none.")
@click.option("-d", "--depths", callback=_counts, default="0", show_default=True, help="Tokens in the cache before.")
@click.option("-r", "--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Samples per test.")
@click.option("-t", "--threads", type=click.IntRange(1, 1024), help="All usable cores by default.")
@click.option("-b", "--batch", type=click.IntRange(min=1), help="Tokens of a prompt at once; as the engine by default.")
@click.option("--backend", default="auto", show_default=True, help="auto, or one that `sprat doctor` lists.")
@click.option("--device", help="The profile that this machine is, or with --emulate shall behave like.")
@click.option("--emulate", is_flag=True, help="Run under the device's cores, memory and storage speed. Needs root.")
@click.option("--storage", help="Of the device, where the model lies; its fastest by default.")
@click.option("--sustained", "sustained_s", type=click.IntRange(min=0), default=0, show_default=True,
              help="Then keep each test running for these seconds.")  # fmt: skip
@click.option("--trace", is_flag=True, help="Also show where the time goes, kernel by kernel and layer by layer.")
@click.option(
    "--compare",
    "files",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A B",
    help="Measure nothing: hold the results in file B against those in A.",
)
@click.option("--clear-cache", is_flag=True, help="Measure nothing: remove the files that --shape wrote.")
@click.option("--json", "form", flag_value="json", help="Print one JSON object per test.")
@click.option("--markdown", "form", flag_value="markdown", help="Print markdown tables, on a terminal too.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write JSON lines to this file.")
def command(
    *, form: str | None, output: Path | None, files: tuple[Path, Path] | None, clear_cache: bool, **options: Any
) -> None:
    """Measure how fast MODEL (a bundle or a GGUF) runs here, or under the limits of a device.

    Each test is warmed up until it is stable and then repeated. Every figure says whether it was measured on this
    machine or emulated.
    """
    if files:
        _compare(*files, as_json=form == "json")
        return
    if clear_cache:
        _clear_cache(as_json=form == "json")
        return
    if output:
        check_place(output)
    with progress_bar("bench", quiet=form == "json") as bar:
        made = list(bench(BenchOptions(**options), progress=bar))
    records = [record for record in made if isinstance(record, Measurement)]
    traces = [report for report in made if isinstance(report, TraceReport)]
    if output:
        write_results(output, records)
    match form:
        case "json":
            for record in made:
                print_json(record)
        case "csv":
            click.echo(csv_text(records), nl=False)
        case _:
            _print(records, traces, markdown=form == "markdown")
            saved = output or "results.jsonl"
            before = "" if output else f"the same with -o {saved}   then:  "
            click.echo(f"next:  {before}sprat report {saved} -o report.html")


def _print(records: Sequence[Measurement], traces: Sequence[TraceReport], *, markdown: bool) -> None:
    print_speeds(records, markdown=markdown)
    print_details(records, markdown=markdown)
    for report in traces:
        print_trace(report, markdown=markdown)
    for note, tests in gather_notes(records).items():
        click.echo(f"note: {', '.join(tests) if len(tests) <= _MOST_NAMED else f'{len(tests)} tests'}: {note}")
    if records[0].model.random_weights:
        _print_cache()
    if emulation := records[0].emulation:
        for sentence in emulation.not_emulated:
            click.echo(f"not emulated: {sentence}")


def _print_cache() -> None:
    from sprat.export.gguf.random_weights import shape_cache

    folder = shape_cache()
    size = human_bytes(sum(path.stat().st_size for path in folder.glob("*")))
    click.echo(f"note: {size} of random weights stay in {folder}; remove: sprat bench --clear-cache")


def _clear_cache(*, as_json: bool) -> None:
    from sprat.export.gguf.random_weights import clear_cache, shape_cache

    freed, folder = clear_cache(), shape_cache()
    if as_json:
        print_json({"folder": folder, "freed_bytes": freed})
    else:
        click.echo(f"{human_bytes(freed)} of random weights removed from {folder}")


def _compare(before: Path, after: Path, *, as_json: bool) -> None:
    comparisons = compare(read_results(before), read_results(after), _CONFIDENCE)
    if as_json:
        for pair in comparisons:
            print_json({"test": pair.before.work.test, "verdict": pair.verdict, "ratio": pair.ratio})
        return
    print_comparison(comparisons, _CONFIDENCE)
    for difference in differences(comparisons[0].before, comparisons[0].after):
        click.echo(f"differs: {difference}")
    click.echo(f"next:  sprat report {before} {after} -o report.html")
