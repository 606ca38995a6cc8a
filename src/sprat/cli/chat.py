"""``sprat chat``."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import click

from sprat.app.model_reference import open_engine
from sprat.cli.model_options import load_options, sampling_options
from sprat.cli.reply import print_reply, show_timings
from sprat.runtime.engine import Engine
from sprat.runtime.session import Session

__all__ = ["command"]

_HELP = "/reset forgets the conversation, /quit or Ctrl-D ends it, Ctrl-C stops an answer."


@click.command(epilog="Example:  sprat chat OUT --temp 0.6 --top-p 0.95")
@click.argument("model")
@load_options
@sampling_options
def command(*, model: str, load: dict[str, Any], options: dict[str, Any]) -> None:
    """Talk with MODEL, a bundle or a GGUF file; the cache stays between turns."""
    with open_engine(model, **load) as engine, engine.session() as session:
        click.echo(
            f"{engine.name} on {engine.backend_choice.text()}, context {engine.context} tokens. {_HELP}", err=True
        )
        while (text := _ask()) is not None:
            _turn(engine, session, text, options)


def _ask() -> str | None:
    """The next line that is not blank; ``None`` at the end."""
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            return None
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
    """Let Ctrl-C end the answer at its next token; what was said until then stays in the conversation."""
    before = signal.signal(signal.SIGINT, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
