"""``sprat export``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Unpack

import click

from sprat.app.export import estimate_export, export, export_with_optimum
from sprat.cli.model_options import calibration_option, ignore_config_field_option, tensor_option
from sprat.cli.output.export_tables import print_estimate, print_groups
from sprat.cli.output.interruption import continues_after_interruption
from sprat.cli.output.terminal import print_json, progress_bar
from sprat.devices.plan.text import headline, notes
from sprat.errors import InputError
from sprat.export.options import ExportKeywords, ExportOptions
from sprat.export.pipeline import ExportResult
from sprat.text import human_bytes, printable

if TYPE_CHECKING:
    from sprat.export.onnx.optimum import OptimumExport

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat export DeepSeek-V2-Lite-Chat v2-lite --device rpi5-8gb
  sprat export model.gguf out --quant int8
  sprat export demo out --quant int4 --tensor 'ffn_down_exps=q5_0'
  sprat export demo out --format onnx,gguf --quant int4
  sprat export model.gguf out --quality best --match-size model-Q4_K_M.gguf
  sprat export demo out --prune-experts 0.25 --calibration mine.txt
  sprat export DeepSeek-V2-Lite-Chat v2-lite --device rpi5-8gb --dry-run
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source")
@click.argument("out")
@click.option("--device", help="Choose the best quantization that fits this device (see: sprat devices).")
@click.option("--quant", help="int8, int4, a mix such as q4_k_m, a block format such as q4_k, or keep (GGUF).")
@click.option(
    "--format",
    "formats",
    default="gguf",
    show_default=True,
    callback=lambda _context, _option, value: value.split(","),
    help="gguf, onnx, or gguf,onnx.",
)
@tensor_option
@click.option(
    "--quality",
    type=click.Choice(["none", "fast", "balanced", "best"]),
    help="Choose formats by their cost: fast (default for int4) by packaged costs, balanced and best by measured ones.",
)
@click.option("--target-size", metavar="SIZE", help="The best file of at most SIZE, such as 6.2GB.")
@click.option("--target-bpw", type=float, help="The best file of so many bits per weight.")
@click.option(
    "--match-size", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="The best file of the same size."
)
@click.option("--max-kld", type=float, help="The smallest file within this mean KL divergence, in nats.")
@calibration_option("calibrate and prune")
@click.option(
    "--prune-experts",
    type=float,
    metavar="SHARE",
    help="Leave out this share of each layer's experts, those that add least to the calibration text.",
)
@click.option(
    "--imatrix-out",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the calibration's mean squares for llama-quantize --imatrix.",
)
@click.option(
    "--speed-weight",
    type=float,
    default=0.0,
    metavar="W",
    help="With --device: weight of predicted speed against KL divergence; 1: 10 % of one for 10 % of the other.",
)
@click.option("--align", type=int, help="GGUF: alignment of the tensors in bytes; by default 32.")
@click.option("--split", metavar="SIZE", help="GGUF: split into files of at most SIZE, such as 4G for FAT32 cards.")
@click.option("--name", help="The model's name in manifest, metadata and file name; by default that of SOURCE.")
@click.option(
    "--block-size", type=click.Choice([32, 64, 128]), default=32, show_default=True, help="ONNX: weights per scale."
)
@click.option(
    "--accuracy-level",
    type=click.Choice([0, 4]),
    default=4,
    show_default=True,
    help="ONNX: 4 quantizes activations to int8, 0 keeps them in float32.",
)
@click.option("--portable", is_flag=True, help="ONNX: standard operators only, for runtimes other than onnxruntime.")
@click.option(
    "--ort", default="1.22", show_default=True, metavar="VERSION", help="ONNX: oldest onnxruntime that loads it."
)
@click.option(
    "--exporter",
    type=click.Choice(["sprat", "optimum"]),
    default="sprat",
    help="optimum: trace architectures that sprat has no ONNX writer for.",
)
@click.option(
    "--lora",
    multiple=True,
    metavar="DIR[:SCALE]",
    help="Merge the LoRA adapter (PEFT safetensors) in DIR into the weights; may be repeated.",
)
@ignore_config_field_option
@click.option(
    "--chat-template",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="A Jinja chat template to use instead of the one of SOURCE.",
)
@click.option("--context", type=click.IntRange(min=1), help="Tokens to plan the KV cache for.")
@click.option(
    "--force", is_flag=True, help="Replace an existing bundle at OUT, and write a model that does not fit the device."
)
@click.option("--dry-run", is_flag=True, help="Show sizes, free space and about the time; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    *, source: str, out: str, exporter: str, dry_run: bool, as_json: bool, **options: Unpack[ExportKeywords]
) -> None:
    """Export SOURCE (checkpoint folder, GGUF, org/name in the Hugging Face cache, `demo`) to a bundle; resumes."""
    if exporter == "optimum":
        if dry_run:
            raise InputError("--dry-run: optimum's sizes are not known before it has traced; omit one of the two")
        _print_traced(_trace(source, out, options), as_json=as_json)
        return
    if dry_run:
        print_estimate(estimate_export(source, out, **options), as_json=as_json)
        return
    in_bytes = ExportOptions.of(options).calibrated.level in {"none", "fast"}  # the others count layers, too
    bar = progress_bar("exporting", quiet=as_json, in_bytes=in_bytes)
    with bar as show, continues_after_interruption(show) as remember:
        result = export(source, out, progress=remember, **options)
    if as_json:
        print_json({"path": result.path, "bits_per_weight": result.bits_per_weight, "manifest": result.bundle.manifest})
    else:
        _print(result, source, options)


def _trace(source: str, out: str, options: ExportKeywords) -> OptimumExport:
    refused = {
        "--lora": options["lora"],
        "--ignore-config-field": options["ignore_config_fields"],
        "--chat-template": options["chat_template"],
        "--prune-experts": options["prune_experts"],
    }
    if given := [name for name, value in refused.items() if value]:
        raise InputError(
            f"{', '.join(given)}: optimum exports the source as it is; omit it, or export with --exporter sprat"
        )
    return export_with_optimum(
        source,
        out,
        quant=options["quant"] or "int4",
        block_size=options["block_size"],
        accuracy_level=options["accuracy_level"],
        portable=options["portable"],
    )


def _print_traced(traced: OptimumExport, *, as_json: bool) -> None:
    if as_json:
        print_json(traced)
        return
    click.echo(f"{traced.path}: {traced.n_quantized} products quantized, {traced.n_unquantized} left in float")
    click.echo(f"against the float graph:\n{traced.quality.text()}")
    code = f"import onnxruntime as ort; ort.InferenceSession({str(traced.path / 'model.onnx')!r})"
    click.echo(f"next:  python -c {shlex.quote(code)}")


def _print(result: ExportResult, source: str, options: ExportKeywords) -> None:
    manifest = result.bundle.manifest
    size = sum(file.size_bytes for file in manifest.files)
    click.echo(f"{result.path}: {human_bytes(size)}, {result.bits_per_weight:.2f} bits per weight, {manifest.recipe}")
    if result.plan is not None:
        click.echo(headline(result.plan))
        for note in notes(result.plan) if not result.plan.runs else ():
            click.echo(f"note: {note}")
    print_groups(manifest.tensor_groups)
    for report in (manifest.pruning, manifest.quality):
        for line in report.lines() if report else ():
            click.echo(printable(line))
    for note in (*manifest.warnings, *result.notes):
        click.echo(f"note: {printable(note)}")
    out, origin = shlex.quote(str(result.path)), shlex.quote(source)
    adapters = "".join(f" --lora {shlex.quote(str(text))}" for text in options["lora"])
    raw = "" if result.chats else " --raw"
    click.echo(f"next:  sprat verify {out} --source {origin}{adapters}   then:  sprat run {out} 'a prompt'{raw}")
