"""``sprat chat``."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from sprat.cli.model_options import load_checked, load_options, sampling_options, template_options
from sprat.cli.output.reply import print_reply, show_timings
from sprat.errors import PromptError, TemplateError, unknown_name
from sprat.files import MAX_INPUT_BYTES
from sprat.runtime.chat.completions import Message
from sprat.runtime.engine import Engine
from sprat.runtime.session import Session
from sprat.text import printable

__all__ = ["command"]

_HELP = "/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends the program."
_COMMANDS = """\
/reset        start a new conversation; the system message stays
/system TEXT  set the system message; without TEXT, remove it
/quit         end the program
A line that begins with a space or // is sent as it is."""
_NAMES = ("/help", "/quit", "/reset", "/system")
_COMMAND = re.compile(r"/(?P<name>[a-z]+)(?:\s+(?P<text>.*))?", re.DOTALL)

_EXAMPLES = """\b
Examples:
  sprat chat OUT --temp 0.6 --top-p 0.95
  sprat chat OUT --system "Answer in one sentence."
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model")
@click.option("--system", help="A system message before the conversation.")
@click.option(
    "--overflow",
    type=click.Choice(["error", "shift", "summarise", "stop"]),
    default="error",
    show_default=True,
    help="When the conversation fills the context: error asks for /reset, shift drops the oldest turns, summarise "
    "lets the model summarise them. (stop: error)",
)
@template_options
@load_options
@sampling_options
def command(
    *,
    model: str,
    system: str | None,
    overflow: Any,
    template: dict[str, Any],
    load: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Chat with MODEL (a bundle, a model file, a checkpoint or `demo`); the KV cache is kept between turns."""
    if overflow == "stop":
        click.echo("sprat: --overflow stop is now --overflow error; the old name goes in 0.4", err=True)
        overflow = "error"
    with load_checked(model, load) as engine, engine.session(overflow=overflow) as session:
        chat = _Chat(engine, session, {**options, **template})
        _check_template(engine, system, template)
        chat.begin(system)
        name = printable(engine.name)
        click.echo(f"{name} on {engine.backend_choice.text()}, context {engine.context} tokens. {_HELP}", err=True)
        while (text := _ask()) is not None:
            chat.take(text)


def _check_template(engine: Engine, system: str | None, template: dict[str, Any]) -> None:
    """Fail before the first question, if no question can be asked."""
    try:
        engine.encode_chat([*_system_message(system), Message(role="user", content="Hello")], **template)
    except TemplateError as error:
        raise TemplateError(f"{error}; `sprat run MODEL PROMPT --raw` continues a prompt without one") from error


def _ask() -> str | None:
    """The next non-blank line; ``None`` at the end of input and at /quit."""
    if sys.stdin is None:
        raise PromptError("standard input is closed, and a chat reads its messages from it")
    while True:
        try:
            text = _line().rstrip()
        except EOFError:
            return None
        except UnicodeDecodeError as error:
            raise PromptError(f"the line is not valid {error.encoding} ({error.reason}); type it again") from error
        if text in {"/quit", "/exit"}:
            return None
        if text:
            return text


def _line() -> str:
    """The next line, without line editing where no one types.

    Raises:
        EOFError: there is none.
        PromptError: it has more characters than any context holds.
    """
    if sys.stdin.isatty():
        return input("> ")
    click.echo("> ", nl=False)
    line = sys.stdin.readline(MAX_INPUT_BYTES + 1)
    if not line:
        raise EOFError
    if len(line) > MAX_INPUT_BYTES:
        raise PromptError(f"a line has over {MAX_INPUT_BYTES:,} characters, which no context holds")
    return line


class _Chat:
    """A conversation, its commands, and what is printed."""

    def __init__(self, engine: Engine, session: Session, options: dict[str, Any]) -> None:
        self._engine, self._session, self._options = engine, session, options
        self._system: str | None = None

    def begin(self, system: str | None) -> None:
        """Start a conversation with a system message, if there is one."""
        self._system = system
        self._session.reset()
        self._session.messages.extend(_system_message(system))

    def take(self, line: str) -> None:
        """Carry out a command, or send the line as a message."""
        command = _COMMAND.fullmatch(line)
        if command is None:
            self._send(line.lstrip().removeprefix("/") if line.lstrip().startswith("//") else line.strip())
        elif command["name"] == "help":
            click.echo(_COMMANDS, err=True)
        elif command["name"] == "reset":
            self.begin(self._system)
        elif command["name"] == "system":
            self._set_system(command["text"])
        else:
            unknown = unknown_name("command", line.split(maxsplit=1)[0], _NAMES)
            click.echo(f"sprat: {unknown}; // sends a line that begins with /", err=True)

    def _set_system(self, text: str | None) -> None:
        """Replace the system message; the turns stay."""
        turns = [message for message in self._session.messages if message["role"] != "system"]
        self._session.messages[:] = [*_system_message(text), *turns]
        self._system = text

    def _send(self, text: str) -> None:
        try:
            stream = self._session.stream_chat(text, **self._options)
        except PromptError as error:
            reason = printable(str(error))
            click.echo(f"sprat: {reason}; /reset starts a new conversation, --overflow shift drops old turns", err=True)
            return
        with _ctrl_c_calls(stream.cancel):
            timings = print_reply(stream)
        show_timings(timings, self._engine)


def _system_message(text: str | None) -> list[Message]:
    return [Message(role="system", content=text)] if text else []


@contextlib.contextmanager
def _ctrl_c_calls(stop: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C cancel the answer at the next token; the text so far stays in the conversation."""
    before = signal.signal(signal.SIGINT, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
