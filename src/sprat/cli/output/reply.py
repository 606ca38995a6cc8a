"""Print a reply as it is generated: reasoning dimmed, then the answer, then the speed."""

from __future__ import annotations

import sys
from typing import Any

import click

from sprat.cli.output.terminal import shown
from sprat.runtime.chat.completions import ChatStream
from sprat.runtime.engine import Engine

__all__ = ["print_reply", "show_timings"]


def print_reply(stream: ChatStream) -> dict[str, Any]:
    """Print the chunks as they arrive, and return the timings.

    The reasoning goes to standard error, so that a pipe receives only the answer.
    """
    in_reasoning = False
    timings: dict[str, Any] = {}
    for chunk in stream:
        delta = chunk["choices"][0]["delta"]
        if delta.get("reasoning_content"):
            in_reasoning = True
            click.echo(click.style(shown(delta["reasoning_content"]), dim=True), nl=False, err=True)
        if delta.get("content"):
            if in_reasoning:
                click.echo(err=True)
                in_reasoning = False
            click.echo(shown(delta["content"]), nl=False)
            sys.stdout.flush()
        timings = chunk.get("timings", timings)
    click.echo()
    return timings


def show_timings(timings: dict[str, Any], engine: Engine) -> None:
    """Print one dimmed line on standard error: the speed, the backend, and why it was chosen."""
    prompt = f"{timings['prompt_n']} prompt tokens at {timings['prompt_per_second']:.1f}/s"
    answer = f"{timings['predicted_n']} tokens at {timings['predicted_per_second']:.1f}/s"
    click.echo(click.style(f"[{prompt}, {answer}; {engine.backend_choice.text()}]", dim=True), err=True)
