"""``sprat verify``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sprat.app.verify import verify
from sprat.cli.model_options import context_options
from sprat.cli.output.terminal import print_json, progress_bar
from sprat.devices.plan.context_settings import CacheType
from sprat.errors import InputError
from sprat.export.verify.verify import Verification
from sprat.files import read_text
from sprat.quant.kld_scale import kld_in_words

__all__ = ["command"]


@click.command(epilog="Example:  sprat verify out --source DeepSeek-V2-Lite-Chat --max-kld 0.05")
@click.argument("artifact")
@click.option(
    "--source", required=True, help="What ARTIFACT was exported from: a checkpoint folder, a GGUF, or `demo`."
)
@click.option("--text", "text_file", help="A text file that both models read; by default sprat's evaluation text.")
@click.option(
    "--backend", "backends", multiple=True, help="Backend that runs ARTIFACT; may be repeated. By default all that can."
)
@click.option("--max-kld", type=float, help="Exit with 1 if the mean KL divergence, in nats per token, is larger.")
@click.option("--max-tokens", type=click.IntRange(min=2), help="Read only the first tokens of the text.")
@click.option(
    "--lora", multiple=True, metavar="DIR[:SCALE]", help="LoRA adapter that the export merged; as in the export."
)
@click.option(
    "--gpu", default="off", metavar="WHAT", help="Run ARTIFACT on a GPU: auto, on, or an amount of its memory."
)
@click.option("--provider", metavar="NAME", help="Run ARTIFACT with this provider of onnxruntime: webgpu, cuda, ...")
@context_options
@click.option("--card", is_flag=True, help="Write the measurement into the README.md of the bundle ARTIFACT.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    *,
    artifact: str,
    source: str,
    text_file: str | None,
    backends: tuple[str, ...],
    max_kld: float | None,
    max_tokens: int | None,
    lora: tuple[str, ...],
    gpu: str,
    provider: str | None,
    cache: CacheType | None,
    flash_attention: bool | None,
    card: bool,
    as_json: bool,
) -> None:
    """Compare ARTIFACT (a bundle or a model file) with its source.

    Prints perplexity, KL divergence and token probabilities as llama-perplexity does, for the second half of each
    window, and for MoE models the routing overlap: the share of experts that source and artifact both selected.
    """
    with progress_bar("verifying", quiet=as_json) as bar:
        verification = verify(
            artifact,
            source,
            text=None if text_file is None else _read(text_file),
            backends=backends or None,
            max_kld=max_kld,
            max_tokens=max_tokens,
            lora=lora,
            gpu=gpu,
            provider=provider,
            cache=cache,
            flash_attention=flash_attention,
            card=card,
            progress=bar,
        )
    if as_json:
        words = {name: kld_in_words(found.mean_kld) for name, found in verification.quality.items()}
        print_json({"passed": verification.passed, "in_words": words, "verification": verification})
    else:
        _print(verification)
    if not verification.passed:
        sys.exit(1)


def _read(path: str) -> str:
    try:
        return read_text(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--text {path}: cannot be read as UTF-8 text ({error}); pass a text file") from error


def _print(verification: Verification) -> None:
    worst = max(found.mean_kld for found in verification.quality.values())
    limit = "no limit given (--max-kld)" if verification.max_kld is None else f"limit {verification.max_kld}"
    click.echo(f"{_verdict(verification)}: mean KL divergence {worst:.6f}, {limit}")
    click.echo(f"{kld_in_words(worst)}; a small model loses more in the same format, and other texts read otherwise\n")
    click.echo(verification.text())


def _verdict(verification: Verification) -> str:
    """Without a limit there is no verdict, except that a KL divergence that is NaN or Inf always fails."""
    if not verification.passed:
        return "FAILED"
    return "MEASURED" if verification.max_kld is None else "PASSED"
