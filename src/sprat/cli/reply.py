"""A reply on the screen while it is made: thoughts dim, the answer plain, the speed at the end."""

from __future__ import annotations

import sys
from typing import Any

import click

from sprat.runtime.chat.completions import ChatStream
from sprat.runtime.engine import Engine

__all__ = ["print_reply", "show_timings"]


def print_reply(stream: ChatStream) -> dict[str, Any]:
    """Print the parts as they come; returns the timings.

    Thoughts go to standard error, so that a pipe gets the answer alone.
    """
    thinking = False
    timings: dict[str, Any] = {}
    for chunk in stream:
        delta = chunk["choices"][0]["delta"]
        if delta.get("reasoning_content"):
            thinking = True
            click.echo(click.style(delta["reasoning_content"], dim=True), nl=False, err=True)
        if delta.get("content"):
            if thinking:
                click.echo(err=True)
                thinking = False
            click.echo(delta["content"], nl=False)
            sys.stdout.flush()
        timings = chunk.get("timings", timings)
    click.echo()
    return timings


def show_timings(timings: dict[str, Any], engine: Engine) -> None:
    """One dim line on standard error: how fast, on which backend, and why that one."""
    prompt = f"{timings['prompt_n']} prompt tokens at {timings['prompt_per_second']:.1f}/s"
    answer = f"{timings['predicted_n']} tokens at {timings['predicted_per_second']:.1f}/s"
    click.echo(click.style(f"[{prompt}, {answer}; {engine.backend_choice.text()}]", dim=True), err=True)
