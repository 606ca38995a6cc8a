"""``sprat run``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from sprat.cli.model_options import (
    answer_rules,
    format_options,
    load_checked,
    load_options,
    sampling_options,
    template_options,
)
from sprat.cli.output.reply import print_reply, show_timings
from sprat.cli.output.terminal import print_json, progress_bar, shown
from sprat.errors import PromptError, TemplateError
from sprat.files import MAX_INPUT_BYTES
from sprat.runtime.chat.completions import Message
from sprat.runtime.engine import Engine

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat run OUT "What is the capital of France?"
  sprat run OUT "Once upon a time" --raw -n 64 --temp 0.7 --seed 1
  sprat run OUT "lights off in the kitchen" --json
  sprat run OUT "lights off in the kitchen" --json-schema command.json --close-json -n 60
  sprat run OUT "Is it warm at 30 degrees?" --choices yes,no
  sprat run OUT - < question.txt
  sprat run OUT "def mean(values):" --suffix "    return total / len(values)"
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model")
@click.argument("prompt")
@click.option("--system", help="A system message before the prompt.")
@click.option("--raw", is_flag=True, help="Continue the prompt without the chat template.")
@click.option("--suffix", help="Fill in between the prompt and this text, without the chat template (code models).")
@template_options
@load_options
@sampling_options
@format_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object in OpenAI's format, with reasoning_content."
)
def command(
    *,
    model: str,
    prompt: str,
    system: str | None,
    raw: bool,
    suffix: str | None,
    template: dict[str, Any],
    load: dict[str, Any],
    options: dict[str, Any],
    formats: dict[str, Any],
    as_json: bool,
) -> None:
    """Answer one PROMPT with MODEL (a bundle, a model file, a checkpoint or `demo`).

    PROMPT - is read from standard input.
    """
    options |= answer_rules(formats)
    if prompt == "-":
        prompt = _standard_input()
    with load_checked(model, load, quiet=as_json) as engine, progress_bar("prefill", quiet=as_json) as bar:
        options["on_prefill"] = bar
        if raw or suffix is not None:
            _continue(engine, prompt, suffix, options, as_json=as_json)
        else:
            _answer(engine, _messages(system, prompt), {**options, **template}, as_json=as_json)


def _standard_input() -> str:
    """The whole of standard input, without the line end that a shell adds."""
    if sys.stdin is None:
        raise PromptError("standard input is closed, but the prompt - is read from it")
    try:
        data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        if len(data) > MAX_INPUT_BYTES:
            raise PromptError(f"standard input has over {MAX_INPUT_BYTES:,} bytes, which no context holds")
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input is not UTF-8 text ({error}); convert it, for example with iconv") from error


def _messages(system: str | None, prompt: str) -> list[Message]:
    before = [Message(role="system", content=system)] if system else []
    return [*before, Message(role="user", content=prompt)]


def _answer(engine: Engine, messages: list[Message], options: dict[str, Any], *, as_json: bool) -> None:
    try:
        stream = engine.stream_chat(messages, **options)
    except TemplateError as error:
        raise TemplateError(f"{error}; with --raw, sprat run continues the prompt without a chat template") from error
    if as_json:
        print_json(stream.completion())
    else:
        show_timings(print_reply(stream), engine)


def _continue(engine: Engine, prompt: str, suffix: str | None, options: dict[str, Any], *, as_json: bool) -> None:
    generation = engine.generate(prompt, suffix=suffix, **options)
    if as_json:
        text = generation.text()
        print_json({"model": engine.name, "text": text, **asdict(generation.summary)})
        return
    click.echo(prompt, nl=False)
    for piece in generation:
        click.echo(shown(piece.text), nl=False)
    click.echo(suffix or "")
    show_timings(asdict(generation.summary.timings), engine)
