"""``sprat export``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat export DeepSeek-V2-Lite-Chat v2-lite --device rpi5-8gb
  sprat export model.gguf out --quant int8
  sprat export demo out --quant int4 --tensor 'ffn_down_exps=q5_0'
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--device", help="Choose the quantization that fits this device (see: sprat devices).")
@click.option("--quant", help="int8, int4, or any single block format such as q4_k.")
@click.option("--format", "formats", default="gguf", show_default=True, help="Formats to write, separated by commas.")
@click.option("--tensor", "tensor_rules", multiple=True, metavar="PATTERN=FORMAT", help="A format for some tensors.")
@click.option("--align", type=int, help="Lay every tensor on a multiple of this many bytes; 4096 for mixtures.")
@click.option("--force", is_flag=True, help="Replace an older bundle at OUT, and export what will not fit the device.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    source: str,
    out: Path,
    device: str | None,
    quant: str | None,
    formats: str,
    tensor_rules: tuple[str, ...],
    align: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Turn SOURCE, a checkpoint folder or a GGUF, into a bundle at OUT.

    The same command continues after an interruption. Memory stays near one tensor, whatever the model's size.
    """
    from sprat.export.pipeline import export

    print(export)
