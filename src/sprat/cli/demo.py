"""``sprat demo``: the whole way of a model to a small board, on the student that travels with sprat."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from sprat.app.model_reference import find_source
from sprat.arrays import I32Array
from sprat.cli.terminal import progress_bar
from sprat.demo.tasks import prose
from sprat.devices.plan.text import headline
from sprat.export.pipeline import ExportResult, export
from sprat.export.verify.verify import Verification, verify
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.backends.reference import ReferenceBackend
from sprat.runtime.chat.completions import Message
from sprat.runtime.chat.prompt import chat_prompt
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.model_file import find_model
from sprat.runtime.open_model import find_template
from sprat.runtime.tokenizer.tokenizer import Tokenizer
from sprat.text import human_bytes

__all__ = ["command", "routing_picture"]

DEVICE = "rpi5-8gb"
STORY = "Mia has 347 stamps. A friend gives Mia 285 more. Then Mia sells 96 of them. How many stamps does Mia have now?"
COMMAND = "Could you dim the bedroom light to 40 percent in ten minutes?"

_VERIFY_TOKENS = 512
_MAX_KLD = 0.25  # int4 costs the student 0.07 here; a broken tensor costs far more
_SHADES = " ░▒▓█"


@click.command(epilog="Example:  sprat demo build/demo")
@click.argument("out", default="build/demo", type=click.Path(path_type=Path))
def command(*, out: Path) -> None:
    """Export the packaged student for a Raspberry Pi to OUT, verify it, and let it think, obey and show its experts."""
    began = time.monotonic()
    _heading(f"1. Export the student for {DEVICE}, in int4")
    _print_export(_export(out))
    _heading("2. Verify it against its source")
    _print_verification(_verify(out))
    with Engine.load(out, device=DEVICE) as engine:
        _heading(f"3. Solve a word problem (backend {engine.backend.name})")
        _print_reply(engine, STORY)
        _heading("4. Turn a command into JSON")
        _print_reply(engine, COMMAND)
    _heading("5. Which experts fired for that command")
    click.echo(_picture(out, COMMAND))
    _heading(f"Done in {time.monotonic() - began:.0f} s. Try next")
    for line in (
        f"sprat chat {out}",
        f'sprat run {out} "Which is larger, 417 or 471?"',
        f"sprat eval {out} --task home --n 200",
        f"sprat inspect {out}",
        f"sprat devices show {DEVICE}",
    ):
        click.echo(f"  {line}")


def routing_picture(chosen: Mapping[int, I32Array], n_experts: int) -> str:
    """One line per mixture layer, one character per expert: the darker, the more tokens chose it.

    Args:
        chosen: layer -> experts of each token, ``(n, n_experts_per_token)``.
        n_experts: routed experts per layer.

    Example:
        >>> print(routing_picture({1: np.array([[0, 2], [0, 3]])}, 4))
        layer 1  █ ▒▒  3 of 4
    """
    lines = []
    for layer, experts in sorted(chosen.items()):
        counts = np.bincount(experts.ravel(), minlength=n_experts)
        shades = np.ceil(counts / counts.max() * (len(_SHADES) - 1)).astype(int)
        cells = "".join(_SHADES[shade] for shade in shades)
        lines.append(f"layer {layer}  {cells}  {np.count_nonzero(counts)} of {n_experts}")
    return "\n".join(lines)


def _heading(text: str) -> None:
    click.echo(click.style(f"\n{text}", bold=True))


def _export(out: Path) -> ExportResult:
    with progress_bar("exporting") as bar:
        return export(
            find_source("demo"),
            out,
            quant="int4",
            device=DEVICE,
            force=True,
            progress=bar,
        )


def _print_export(result: ExportResult) -> None:
    size = sum(file.size_bytes for file in result.bundle.manifest.files)
    click.echo(f"{result.path}: {human_bytes(size)}, {result.bits_per_weight:.2f} bits per weight")
    if result.plan is not None:
        click.echo(headline(result.plan))


def _verify(out: Path) -> Verification:
    """Verify on prose that the student was not trained on; not on its problems, whose questions it never learnt."""
    text = "\n\n".join(problem.answer for problem in prose.held_out_texts(limit=8))
    with progress_bar("verifying") as bar:
        return verify(
            out,
            find_source("demo"),
            text=text,
            backends=("reference",),
            max_kld=_MAX_KLD,
            max_tokens=_VERIFY_TOKENS,
            progress=bar,
        )


def _print_verification(found: Verification) -> None:
    quality = found.quality["reference"]
    click.echo(f"{'PASSED' if found.passed else 'FAILED'}: mean KL divergence {quality.mean_kld:.4f} nats per token")
    if found.routing:
        click.echo(f"chosen experts in common with the source: {np.mean(list(found.routing.values())):.1%}")


def _print_reply(engine: Engine, prompt: str) -> None:
    click.echo(f"> {prompt}")
    reply = engine.chat([Message(role="user", content=prompt)], temperature=0.0, max_tokens=200)
    message = reply["choices"][0]["message"]
    for line in message.get("reasoning_content", "").splitlines():
        click.echo(click.style(f"  thinks  {line}", dim=True))
    click.echo(_pretty(message["content"]))
    speed = reply["timings"]["predicted_per_second"]
    click.echo(click.style(f"[{reply['timings']['predicted_n']} tokens at {speed:.0f}/s]", dim=True))


def _pretty(content: str) -> str:
    try:
        return json.dumps(json.loads(content), indent=2, ensure_ascii=False)
    except ValueError:
        return content


def _picture(out: Path, prompt: str) -> str:
    """The experts chosen for the tokens of `prompt`, as the NumPy backend observes them."""
    chosen: dict[int, list[I32Array]] = {}

    def observe(layer: int, experts: I32Array) -> None:
        chosen.setdefault(layer, []).append(experts)

    file = GGUFFile.open(find_model(out))
    spec = spec_from_metadata(file.metadata, file)
    tokenizer = Tokenizer.from_gguf(file.metadata)
    template = find_template(file.metadata, tokenizer)
    if template is None or spec.moe is None:  # the packaged student has both
        return "no mixture, nothing to show"
    tokens = chat_prompt(template, tokenizer, [Message(role="user", content=prompt)]).tokens
    stream = ReferenceBackend(spec, file, dense_bytes=0).new_stream(len(tokens), observe)
    stream.extend(tokens)
    joined = {layer: np.concatenate(parts) for layer, parts in chosen.items()}
    return _legend(len(tokens)) + routing_picture(joined, spec.moe.n_routed_experts)


def _legend(n_tokens: int) -> str:
    return f"{n_tokens} tokens; one character per expert, darker where more tokens chose it\n"
