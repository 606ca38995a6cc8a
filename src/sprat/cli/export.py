"""``sprat export``."""

from __future__ import annotations

import click

from sprat.app.model_reference import find_source
from sprat.cli.terminal import print_json, print_table, progress_bar
from sprat.devices.plan.text import headline, notes
from sprat.export.onnx import OnnxOptions
from sprat.export.pipeline import ExportResult, export
from sprat.text import human_bytes

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat export DeepSeek-V2-Lite-Chat v2-lite --device rpi5-8gb
  sprat export model.gguf out --quant int8
  sprat export demo out --quant int4 --tensor 'ffn_down_exps=q5_0'
  sprat export demo out --format onnx,gguf --quant int4
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source")
@click.argument("out")
@click.option("--device", help="Choose the quantization that fits this device (see: sprat devices).")
@click.option("--quant", help="int8, int4, or any single block format such as q4_k.")
@click.option("--format", "formats", default="gguf", show_default=True, help="gguf, onnx, or both with a comma.")
@click.option("--tensor", "tensor_rules", multiple=True, metavar="PATTERN=FORMAT", help="A format for some tensors.")
@click.option("--align", type=int, help="GGUF: lay tensors on multiples of this many bytes; 4096 for mixtures.")
@click.option("--block-size", type=click.Choice(["32", "64", "128"]), default="32", help="ONNX: weights in a group.")
@click.option("--accuracy-level", type=click.Choice(["0", "4"]), default="4", help="ONNX: 0 for float32 activations.")
@click.option("--portable", is_flag=True, help="ONNX: standard operators only, for other runtimes than onnxruntime.")
@click.option(
    "--exporter",
    type=click.Choice(["sprat", "optimum"]),
    default="sprat",
    help="optimum: ONNX of architectures that sprat has no writer for.",
)
@click.option("--context", type=click.IntRange(min=1), help="Tokens to plan the cache for.")
@click.option("--force", is_flag=True, help="Replace an older bundle at OUT, and write what does not fit the device.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    *,
    source: str,
    out: str,
    device: str | None,
    quant: str | None,
    formats: str,
    tensor_rules: tuple[str, ...],
    align: int | None,
    block_size: str,
    accuracy_level: str,
    portable: bool,
    exporter: str,
    context: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Turn SOURCE (a checkpoint folder, a GGUF, or `demo`) into a bundle at OUT.

    Interrupted at any moment, the same command continues. Memory stays near one tensor, whatever the model's size.
    """
    onnx = OnnxOptions(block_size=int(block_size), accuracy_level=int(accuracy_level), portable=portable)
    if exporter == "optimum":
        _with_optimum(source, out, quant or "int4", onnx, as_json=as_json)
        return
    with progress_bar("exporting", quiet=as_json) as bar:
        result = export(
            find_source(source),
            out,
            quant=quant,
            device=device,
            formats=formats.split(","),
            tensor_rules=tensor_rules,
            align=align,
            onnx=onnx,
            context=context,
            force=force,
            progress=bar,
        )
    if as_json:
        print_json({"path": result.path, "bits_per_weight": result.bits_per_weight, "manifest": result.bundle.manifest})
    else:
        _print(result, source)


def _with_optimum(source: str, out: str, quant: str, onnx: OnnxOptions, *, as_json: bool) -> None:
    from sprat.export.onnx.optimum import export_with_optimum

    made = export_with_optimum(find_source(source), out, quant=quant, options=onnx)
    if as_json:
        print_json(made)
        return
    click.echo(f"{made.path}: {made.n_quantized} products in {quant}, {made.n_left} left in floats")
    click.echo(f"against the float graph:\n{made.quality.text()}")
    click.echo(f"next:  python -c 'import onnxruntime as ort; ort.InferenceSession(\"{made.path}/model.onnx\")'")


def _print(result: ExportResult, source: str) -> None:
    manifest = result.bundle.manifest
    size = sum(file.size_bytes for file in manifest.files)
    click.echo(f"{result.path}: {human_bytes(size)}, {result.bits_per_weight:.2f} bits per weight, {manifest.recipe}")
    if result.plan is not None:
        click.echo(headline(result.plan))
        for note in notes(result.plan) if not result.plan.runs else ():
            click.echo(f"note: {note}")
    rows = [
        (
            group.role,
            group.format if group.format == group.wanted else f"{group.format} (rows not divisible for {group.wanted})",
            group.n_tensors,
            human_bytes(group.size_bytes),
        )
        for group in manifest.tensor_groups
    ]
    print_table(("tensors", "format", "number", "size"), rows)
    for note in (*manifest.warnings, *result.notes):
        click.echo(f"note: {note}")
    click.echo(f"next:  sprat verify {result.path} --source {source}   then:  sprat run {result.path} 'a prompt'")
