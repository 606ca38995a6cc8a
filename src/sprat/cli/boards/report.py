"""``sprat report``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sprat.app.report import report
from sprat.cli.output.terminal import print_json
from sprat.text import printable

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat bench OUT -p 128,512,2048 -n 128 -d 0,4096 -o results.jsonl
  sprat report results.jsonl -o report.html
  sprat plan OUT --all --json > plans.jsonl
  sprat report results.jsonl plans.jsonl -o report.html --png pictures
"""


@click.command(epilog=_EXAMPLES)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("report.html"),
              show_default=True, help="The HTML page.")  # fmt: skip
@click.option("--png", "png_folder", type=click.Path(file_okay=False, path_type=Path),
              help="Also write the charts as PNG to this folder; needs sprat[report].")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace OUTPUT also where it is not a page of sprat report.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object: the files, and the finding of each chart."
)
def command(*, results: tuple[Path, ...], output: Path, png_folder: Path | None, force: bool, as_json: bool) -> None:
    """Draw RESULTS, files from `sprat bench -o` and `sprat plan --json`, as one page that needs no network.

    The charts: speed by device, time to first token, speed by context depth, memory, predicted against measured speed,
    temperature. Measured, emulated and predicted values never share a series.
    """
    made = report(results, output, png_folder=png_folder, force=force)
    findings = {figure.slug: figure.finding for figure in made.figures}
    if as_json:
        print_json({"page": made.page, "pictures": made.pictures, "findings": findings})
        return
    for finding in findings.values():
        click.echo(printable(finding))
    for path in (made.page, *made.pictures):
        click.echo(f"written: {path}")
    click.echo(f"next:  open {shlex.quote(str(output))} in a browser")
