"""``sprat doctor``."""

from __future__ import annotations

import sys

import click

from sprat.app.doctor import Diagnosis, doctor
from sprat.cli.output.terminal import print_json, progress_bar
from sprat.text import human_bytes, printable

__all__ = ["command"]


@click.command(epilog="Example:  sprat doctor --json > machine.json;  sprat doctor OUT")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: str | None, as_json: bool) -> None:
    """Show what this machine can run, and what is missing.

    With MODEL (a bundle or a model file), check it completely: sizes, hashes, headers, every weight, tokenizer, chat
    template, and the logits of a short prompt. Exit with 1 if a check fails.
    """
    with progress_bar("checking", quiet=as_json or model is None, in_bytes=True) as bar:
        diagnosis = doctor(model, progress=bar)
    if as_json:
        print_json(diagnosis)
    else:
        _print(diagnosis)
    if not diagnosis.passed:
        sys.exit(1)


def _print(diagnosis: Diagnosis) -> None:
    cpu = diagnosis.cpu
    native = "yes" if diagnosis.native_core else f"no, NumPy is used instead: {diagnosis.native_missing_because}"
    caches = ", ".join(
        f"{level} {human_bytes(n_bytes)}" for level, n_bytes in sorted(cpu.cache_bytes.items()) if n_bytes
    )
    rows = {
        "sprat": diagnosis.sprat,
        "native core": native,
        "CPU": f"{cpu.model} ({cpu.machine}, {cpu.n_cores} cores usable)",
        "features": " ".join(name for name, present in cpu.features.items() if present) or "none that sprat uses",
        "missing features": " ".join(name for name, present in cpu.features.items() if not present) or "-",
        "caches": caches or "unknown",
        "page size": human_bytes(cpu.page_bytes),
    }
    rows |= {
        f"backend {state.name}": f"{'yes' if state.usable else 'no'}: {state.detail}" for state in diagnosis.backends
    }
    for gpu in diagnosis.gpus:
        memory = f"{human_bytes(gpu.free_bytes)} of {human_bytes(gpu.total_bytes)} free"
        rows[f"GPU {gpu.name}"] = f"{printable(gpu.description)}, {memory}{', shared' if gpu.integrated else ''}"
    if diagnosis.gpu_detail:
        rows["on the GPU" if diagnosis.gpus else "GPU"] = printable(diagnosis.gpu_detail)
    for finding in diagnosis.model:
        rows[finding.what] = f"{'ok' if finding.passed else 'FAILED'}: {printable(finding.detail)}"
    for name, value in rows.items():
        click.echo(f"{name:<18} {value}")
