"""``sprat demo``: the steps of :func:`sprat.app.demo.demo` on the screen."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from sprat.app.demo import DEVICE, Answer, RoutedExperts, StepResult, demo
from sprat.arrays import I32Array
from sprat.cli.output.terminal import progress_bar
from sprat.devices.plan.text import headline
from sprat.export.pipeline import ExportResult
from sprat.export.verify.verify import Verification
from sprat.text import human_bytes

__all__ = ["command", "routing_picture"]

_SHADES = " ░▒▓█"


@click.command(epilog="Example:  sprat demo build/demo")
@click.argument("out", default="build/demo", type=click.Path(path_type=Path))
def command(*, out: Path) -> None:
    """Export the packaged student for a Raspberry Pi to OUT, verify it, chat with it, and show its routing."""
    started = time.monotonic()
    for number, step in enumerate(demo(out), start=1):
        _heading(f"{number}. {step.title}")
        with progress_bar(step.title) as bar:
            result = step.run(bar)
        _print(result)
    _heading(f"Done in {time.monotonic() - started:.0f} s. Try next")
    bundle = shlex.quote(str(out))
    for line in (
        f"sprat chat {bundle}",
        f'sprat run {bundle} "Which is larger, 417 or 471?"',
        f"sprat eval {bundle} --task home --n 200",
        f"sprat inspect {bundle}",
        f"sprat devices show {DEVICE}",
    ):
        click.echo(f"  {line}")


def routing_picture(selected: Mapping[int, I32Array], n_experts: int) -> str:
    """One line per MoE layer, one character per expert: the darker, the more tokens were routed to it.

    Args:
        selected: layer: the experts of each token, ``(n_tokens, n_experts_per_token)``.
        n_experts: routed experts per layer.

    Example:
        >>> print(routing_picture({1: np.array([[0, 2], [0, 3]])}, 4))
        layer 1  █ ▒▒  3 of 4
    """
    lines = []
    for layer, experts in sorted(selected.items()):
        counts = np.bincount(experts.ravel(), minlength=n_experts)
        shades = np.ceil(counts / counts.max() * (len(_SHADES) - 1)).astype(int)
        cells = "".join(_SHADES[shade] for shade in shades)
        lines.append(f"layer {layer}  {cells}  {np.count_nonzero(counts)} of {n_experts}")
    return "\n".join(lines)


def _heading(text: str) -> None:
    click.echo(click.style(f"\n{text}", bold=True))


def _print(result: StepResult) -> None:
    match result:
        case ExportResult():
            _print_export(result)
        case Verification():
            _print_verification(result)
        case Answer():
            _print_answer(result)
        case RoutedExperts():
            click.echo(f"{result.n_tokens} tokens; one character per expert, darker for more tokens")
            click.echo(routing_picture(result.layers, result.n_experts))


def _print_export(result: ExportResult) -> None:
    size = sum(file.size_bytes for file in result.bundle.manifest.files)
    click.echo(f"{result.path}: {human_bytes(size)}, {result.bits_per_weight:.2f} bits per weight")
    if result.plan is not None:
        click.echo(headline(result.plan))


def _print_verification(found: Verification) -> None:
    quality = found.quality["reference"]
    click.echo(f"{'PASSED' if found.passed else 'FAILED'}: mean KL divergence {quality.mean_kld:.4f} nats per token")
    if found.routing:
        click.echo(f"routing overlap with the source: {np.mean(list(found.routing.values())):.1%}")


def _print_answer(answer: Answer) -> None:
    click.echo(f"> {answer.prompt}")
    message, timings = answer.completion["choices"][0]["message"], answer.completion["timings"]
    for line in message.get("reasoning_content", "").splitlines():
        click.echo(click.style(f"  thinks  {line}", dim=True))
    click.echo(_pretty(message["content"]))
    speed = timings["predicted_per_second"]
    click.echo(click.style(f"[{timings['predicted_n']} tokens at {speed:.0f}/s]", dim=True))


def _pretty(content: str) -> str:
    try:
        return json.dumps(json.loads(content), indent=2, ensure_ascii=False)
    except ValueError:
        return content
