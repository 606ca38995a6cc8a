"""``sprat frontier``."""

from __future__ import annotations

import shlex

import click

from sprat.app.frontier import DEFAULT_SIZES, Frontier, frontier
from sprat.cli.model_options import calibration_option
from sprat.cli.output.terminal import print_json, print_table, progress_bar
from sprat.devices.report.figures.frontier import frontier_figure
from sprat.text import printable

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat frontier demo -o frontier.svg
  sprat frontier model.gguf --device rpi5-8gb --sizes q4_0,q4_k_m -o frontier.png
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source")
@click.option("--sizes", default=",".join(DEFAULT_SIZES), show_default=True, help="Mixes whose bytes the files have.")
@click.option("--device", "devices", multiple=True, help="Predict the speed on this device; may be repeated.")
@click.option("--quality", type=click.Choice(["balanced", "best"]), default="balanced", show_default=True)
@calibration_option("calibrate")
@click.option("-o", "--output", metavar="FILE", help="Also draw the frontier: a .svg or .png file.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    *,
    source: str,
    sizes: str,
    devices: tuple[str, ...],
    quality: str,
    calibration: tuple[str, ...],
    output: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure calibrated files of SOURCE in several sizes: KL divergence and same top token.

    Where llama-cpp-python is installed, llama-quantize's files of the same sizes are measured too, made with the
    imatrix of the same text. All are read in float32, on a text that no calibration reads.
    """
    with progress_bar("frontier", quiet=as_json) as bar:
        found = frontier(
            source,
            sizes=sizes.split(","),
            devices=devices,
            quality=quality,
            calibration=calibration,
            picture=output,
            force=force,
            progress=bar,
        )
    if as_json:
        print_json(found)
    else:
        _print(found, source)


def _print(found: Frontier, source: str) -> None:
    figure = frontier_figure(found.model, found.points)
    click.echo(printable(figure.finding))
    print_table(figure.table.columns, figure.table.rows)
    click.echo(f"measured on {found.n_tokens:,} tokens that no calibration reads; speeds are predicted")
    for note in found.notes:
        click.echo(f"note: {note}")
    if found.picture:
        click.echo(f"written: {found.picture}")
    bits = min(point.bits_per_weight for point in found.points if point.maker == found.points[0].maker)
    click.echo(f"next:  sprat export {shlex.quote(source)} OUT --quality balanced --target-bpw {bits:.2f}")
