"""``sprat bench``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from sprat.app.bench import bench, bench_speculation
from sprat.app.bench.trace import TraceReport
from sprat.cli.output.bench_tables import (
    csv_text,
    print_comparison,
    print_details,
    print_speculation,
    print_speeds,
    print_trace,
)
from sprat.cli.output.terminal import print_json, progress_bar
from sprat.devices.bench.compare import compare, differences
from sprat.devices.bench.results import Measurement, check_place, gather_notes, read_results, write_results
from sprat.text import human_bytes, printable

__all__ = ["command"]

_CONFIDENCE = 0.95
_MAX_LISTED_TESTS = 4  # of one note; beyond that their number
_EXAMPLES = """\b
Examples:
  sprat bench OUT -p 512 -n 128 -d 0,4096
  sprat bench --shape deepseek-v2-lite --layers 6 --device rpi5-8gb --emulate --json
  sprat bench OUT --sustained 300 -o results.jsonl
  sprat bench OUT --speculate
  sprat bench --compare before.jsonl after.jsonl
"""


def _counts(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    """Parse numbers separated by commas, as llama-bench does."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(f"{text!r}: expected numbers of tokens separated by commas, for example 0,4096")
    return tuple(int(part) for part in parts)


@click.command(epilog=_EXAMPLES)
@click.argument("model", required=False)
@click.option(
    "--shape", "preset", help="Instead of MODEL: a published model's dimensions with random weights; the file is kept."
)
@click.option(
    "--quant", default="Q4_0", show_default=True, help="With --shape: a block format, or a recipe such as int4."
)
@click.option("--layers", type=click.IntRange(min=1), help="With --shape: only this many layers.")
@click.option(
    "-p", "--n-prompt", callback=_counts, default="512", show_default=True, help="Prompt lengths; 0: no prefill test."
)
@click.option(
    "-n", "--n-gen", callback=_counts, default="128", show_default=True, help="Tokens to generate; 0: no decode test."
)
@click.option(
    "-d", "--depths", callback=_counts, default="0", show_default=True, help="Tokens in the KV cache before each test."
)
@click.option("-r", "--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Samples per test.")
@click.option("-t", "--threads", type=click.IntRange(1, 1024), help="By default one per usable core.")
@click.option(
    "-b", "--batch", type=click.IntRange(min=1), help="Prompt tokens per forward pass; by default the engine's choice."
)
@click.option("--backend", default="auto", show_default=True, help="auto, or one that `sprat doctor` lists.")
@click.option(
    "--provider", metavar="NAME", help="Run an ONNX model with this provider of onnxruntime: webgpu, cuda, ..."
)
@click.option("--device", help="The profile of this machine, or with --emulate of the device to emulate.")
@click.option("--emulate", is_flag=True, help="Run under the device's cores, memory and storage speed. Needs root.")
@click.option("--storage", help="The device's storage that holds the model; by default its fastest.")
@click.option("--sustained", "sustained_s", type=click.IntRange(min=0), default=0, show_default=True,
              help="Keep each test running for this many seconds.")  # fmt: skip
@click.option("--speculate", is_flag=True, help="Measure answers with and without speculative decoding instead.")
@click.option("--trace", is_flag=True, help="Also show the time per kernel and per layer.")
@click.option(
    "--compare",
    "files",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A B",
    help="Compare two results files instead of measuring: is B faster than A?",
)
@click.option("--clear-cache", is_flag=True, help="Remove the files that --shape keeps, instead of measuring.")
@click.option("--json", "output_format", flag_value="json", help="Print one JSON object per test.")
@click.option("--markdown", "output_format", flag_value="markdown", help="Print markdown tables, also on a terminal.")
@click.option("--csv", "output_format", flag_value="csv", help="Print CSV.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also append JSON lines to this file.")
def command(
    *,
    model: str | None,
    preset: str | None,
    quant: str,
    layers: int | None,
    n_prompt: tuple[int, ...],
    n_gen: tuple[int, ...],
    depths: tuple[int, ...],
    repetitions: int,
    threads: int | None,
    batch: int | None,
    backend: str,
    provider: str | None,
    device: str | None,
    emulate: bool,
    storage: str | None,
    sustained_s: int,
    speculate: bool,
    trace: bool,
    files: tuple[Path, Path] | None,
    clear_cache: bool,
    output_format: str | None,
    output: Path | None,
) -> None:
    """Measure the speed of MODEL (a bundle, a model file or `demo`) here, or under the limits of an emulated device.

    Each test runs until its speed is stable and is then repeated. Every value is labelled as measured on this machine,
    emulated or predicted.
    """
    as_json = output_format == "json"
    if files or clear_cache or speculate:
        _instead(model, backend, repetitions, files, clear_cache=clear_cache, as_json=as_json)
        return
    if output:
        check_place(output)
    with progress_bar("bench", quiet=as_json) as bar:
        found = bench(
            model,
            preset=preset,
            quant=quant,
            layers=layers,
            n_prompt=n_prompt,
            n_gen=n_gen,
            depths=depths,
            repetitions=repetitions,
            threads=threads,
            batch=batch,
            backend=backend,
            provider=provider,
            device=device,
            emulate=emulate,
            storage=storage,
            sustained_s=sustained_s,
            trace=trace,
            progress=bar,
        )
        results = list(found)
    _output(results, output_format, output)


def _output(results: Sequence[Measurement | TraceReport], output_format: str | None, output: Path | None) -> None:
    records = [result for result in results if isinstance(result, Measurement)]
    traces = [result for result in results if isinstance(result, TraceReport)]
    if output:
        write_results(output, records)
    match output_format:
        case "json":
            for result in results:
                print_json(result)
        case "csv":
            click.echo(csv_text(records), nl=False)
        case _:
            _print(records, traces, markdown=output_format == "markdown")
            saved = output or "results.jsonl"
            before = "" if output else f"repeat with -o {shlex.quote(str(saved))}   then:  "
            click.echo(f"next:  {before}sprat report {shlex.quote(str(saved))} -o report.html")


def _print(records: Sequence[Measurement], traces: Sequence[TraceReport], *, markdown: bool) -> None:
    print_speeds(records, markdown=markdown)
    print_details(records, markdown=markdown)
    for report in traces:
        print_trace(report, markdown=markdown)
    for note, tests in gather_notes(records).items():
        click.echo(
            f"note: {', '.join(tests) if len(tests) <= _MAX_LISTED_TESTS else f'{len(tests)} tests'}: {printable(note)}"
        )
    if records[0].model.random_weights:
        _print_cache()
    if emulation := records[0].emulation:
        for limit in emulation.not_emulated:
            click.echo(f"not emulated: {limit}")


def _print_cache() -> None:
    from sprat.export.gguf.random_weights import preset_cache

    folder = preset_cache()
    size = human_bytes(sum(path.stat().st_size for path in folder.glob("*")))
    click.echo(f"note: {size} of random weights are kept in {folder}; remove them with: sprat bench --clear-cache")


def _clear_cache(*, as_json: bool) -> None:
    from sprat.export.gguf.random_weights import clear_cache, preset_cache

    freed, folder = clear_cache(), preset_cache()
    if as_json:
        print_json({"folder": folder, "freed_bytes": freed})
    else:
        click.echo(f"{human_bytes(freed)} of random weights removed from {folder}")


def _instead(
    model: str | None,
    backend: str,
    repetitions: int,
    files: tuple[Path, Path] | None,
    *,
    clear_cache: bool,
    as_json: bool,
) -> None:
    """Run the action that replaces the tests: compare, clear the cache, or measure speculation."""
    if files:
        _compare(*files, as_json=as_json)
    elif clear_cache:
        _clear_cache(as_json=as_json)
    else:
        _speculation(model, backend, repetitions, as_json=as_json)


def _speculation(model: str | None, backend: str, repetitions: int, *, as_json: bool) -> None:
    if model is None:
        raise click.UsageError("--speculate needs a MODEL, whose own answers are measured")
    with progress_bar("bench", quiet=as_json) as bar:
        speeds = bench_speculation(model, backend=backend, repetitions=repetitions, progress=bar)
    if as_json:
        for speed in speeds:
            print_json(speed)
    else:
        print_speculation(speeds)


def _compare(before: Path, after: Path, *, as_json: bool) -> None:
    comparisons = compare(read_results(before), read_results(after), _CONFIDENCE)
    if as_json:
        for pair in comparisons:
            print_json({"test": pair.before.work.test, "verdict": pair.verdict, "ratio": pair.ratio})
        return
    print_comparison(comparisons, _CONFIDENCE)
    for difference in differences(comparisons[0].before, comparisons[0].after):
        click.echo(f"differs: {printable(difference)}")
    click.echo(f"next:  sprat report {shlex.join([str(before), str(after)])} -o report.html")
