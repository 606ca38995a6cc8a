"""``sprat chat``."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import click

from sprat.app.load import load as load_model
from sprat.cli.model_options import load_options, sampling_options
from sprat.cli.output.reply import print_reply, show_timings
from sprat.errors import PromptError
from sprat.runtime.engine import Engine
from sprat.runtime.session import Session

__all__ = ["command"]

_HELP = "/reset starts a new conversation, /quit or Ctrl-D ends the program, Ctrl-C stops an answer."


@click.command(epilog="Example:  sprat chat OUT --temp 0.6 --top-p 0.95")
@click.argument("model")
@load_options
@sampling_options
def command(*, model: str, load: dict[str, Any], options: dict[str, Any]) -> None:
    """Chat with MODEL (a bundle, a model file, a checkpoint or `demo`); the KV cache is kept between turns."""
    with load_model(model, **load) as engine, engine.session() as session:
        click.echo(
            f"{engine.name} on {engine.backend_choice.text()}, context {engine.context} tokens. {_HELP}", err=True
        )
        while (text := _ask()) is not None:
            _turn(engine, session, text, options)


def _ask() -> str | None:
    """The next non-blank line; ``None`` at the end of input."""
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            return None
        except UnicodeDecodeError as error:
            raise PromptError(f"the line is not valid {error.encoding} ({error.reason}); type it again") from error
        if text in {"/quit", "/exit"}:
            return None
        if text:
            return text


def _turn(engine: Engine, session: Session, text: str, options: dict[str, Any]) -> None:
    if text == "/reset":
        session.reset()
        return
    stream = session.stream_chat(text, **options)
    with _ctrl_c_calls(stream.cancel):
        timings = print_reply(stream)
    show_timings(timings, engine)


@contextlib.contextmanager
def _ctrl_c_calls(stop: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C cancel the answer at the next token; the text so far stays in the conversation."""
    before = signal.signal(signal.SIGINT, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
