"""``sprat quantize``."""

from __future__ import annotations

import shlex

import click

from sprat.app.quantize import quantize
from sprat.cli.model_options import tensor_option
from sprat.cli.output.interruption import continues_after_interruption
from sprat.cli.output.terminal import print_json, progress_bar
from sprat.export.gguf.quantize import QuantizeResult
from sprat.text import human_bytes, printable

__all__ = ["command"]


@click.command(epilog="Example:  sprat quantize model-F16.gguf model-Q4_K.gguf --quant q4_k --tensor 'ffn_down=q6_k'")
@click.argument("source")
@click.argument("out")
@click.option(
    "--quant",
    default="int4",
    show_default=True,
    help="int8, int4, a mix such as q4_k_m, or a block format such as q4_k.",
)
@tensor_option
@click.option("--align", type=int, help="Alignment of the tensors in bytes; by default as in SOURCE.")
@click.option("--split", metavar="SIZE", help="Split OUT into files of at most SIZE, such as 4G for FAT32 cards.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    *,
    source: str,
    out: str,
    quant: str,
    tensor_rules: tuple[str, ...],
    align: int | None,
    split: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Quantize the GGUF file SOURCE into the GGUF file OUT.

    SOURCE may be any part of a split model, a bundle, org/name in the Hugging Face cache, or `demo`.
    """
    with progress_bar("quantizing", quiet=as_json, in_bytes=True) as bar, continues_after_interruption(bar) as remember:
        result = quantize(
            source,
            out,
            quant=quant,
            tensor_rules=tensor_rules,
            align=align,
            split=split,
            force=force,
            progress=remember,
        )
    if as_json:
        print_json(result)
        return
    written = sum(file.nbytes for file in result.files)
    click.echo(f"{result.file.path}: {human_bytes(result.source_bytes)} -> {human_bytes(written)}{_parts(result)}")
    for group in result.fallbacks:
        click.echo(
            f"note: {printable(group.role)} is {group.format}: its rows do not divide into blocks of {group.wanted}"
        )
    for note in result.notes:
        click.echo(f"note: {printable(note)}")
    click.echo(f"next:  sprat inspect {shlex.quote(str(result.file.path))}")


def _parts(result: QuantizeResult) -> str:
    return f" in {len(result.files)} files" if len(result.files) > 1 else ""
