"""``sprat chat``."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import click

from sprat.app.load import load as load_model
from sprat.cli.model_options import load_options, sampling_options, template_options
from sprat.cli.output.reply import print_reply, show_timings
from sprat.errors import PromptError, TemplateError
from sprat.runtime.engine import Engine
from sprat.runtime.session import Overflow, Session
from sprat.text import printable

__all__ = ["command"]

_HELP = "/reset starts a new conversation, /quit or Ctrl-D ends the program, Ctrl-C stops an answer."


@click.command(epilog="Example:  sprat chat OUT --temp 0.6 --top-p 0.95")
@click.argument("model")
@click.option(
    "--overflow",
    type=click.Choice(["stop", "shift"]),
    default="stop",
    show_default=True,
    help="When the conversation fills the context: stop asks for /reset, shift drops the oldest turns.",
)
@template_options
@load_options
@sampling_options
def command(
    *, model: str, overflow: Overflow, template: dict[str, Any], load: dict[str, Any], options: dict[str, Any]
) -> None:
    """Chat with MODEL (a bundle, a model file, a checkpoint or `demo`); the KV cache is kept between turns."""
    with load_model(model, **load) as engine, engine.session(overflow=overflow) as session:
        _check_template(engine, template)
        name = printable(engine.name)
        click.echo(f"{name} on {engine.backend_choice.text()}, context {engine.context} tokens. {_HELP}", err=True)
        while (text := _ask()) is not None:
            _turn(engine, session, text, {**options, **template})


def _check_template(engine: Engine, template: dict[str, Any]) -> None:
    """Fail before the first question, if no question can be asked."""
    try:
        engine.encode_chat([{"role": "user", "content": "Hello"}], **template)
    except TemplateError as error:
        raise TemplateError(f"{error}; `sprat run MODEL PROMPT --raw` continues a prompt without one") from error


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
    try:
        stream = session.stream_chat(text, **options)
    except PromptError as error:
        reason = printable(str(error))
        click.echo(f"sprat: {reason}; /reset starts a new conversation, --overflow shift drops old turns", err=True)
        return
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
