"""The options that ``run``, ``chat`` and others share: how to load a model, how to sample from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["load_options", "sampling_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

_LOAD = (
    click.option("--device", help="Take memory, threads and context from this profile (see: sprat devices)."),
    click.option("--memory", help="Hard memory budget, for example 3GB; refused before loading if it is too small."),
    click.option("--force", is_flag=True, help="Load what does not fit; every token then waits for storage."),
    click.option("--backend", default="auto", show_default=True, help="auto, or one that `sprat doctor` lists."),
    click.option(
        "-c", "--context", type=click.IntRange(min=1), help="Tokens that prompt and answer may hold together."
    ),
)
_SAMPLING = (
    click.option("-n", "--max-tokens", type=click.IntRange(min=1), help="Stop after this many tokens."),
    click.option("--temp", "--temperature", "temperature", type=float, help="0 always takes the likeliest token."),
    click.option("--top-k", type=int, help="Sample from the k likeliest tokens."),
    click.option("--top-p", type=float, help="Sample from the likeliest tokens that hold this probability together."),
    click.option("--min-p", type=float, help="Drop tokens less likely than this share of the likeliest."),
    click.option("--repeat-penalty", type=float, help="Above 1: recent tokens become less likely."),
    click.option("--seed", type=int, help="Same seed, same answer."),
    click.option("--stop", multiple=True, help="Text that ends the answer; may be given several times."),
    click.option("--timeout", type=float, help="Seconds until the answer is cut off."),
)


def load_options(command: Command) -> Callable[..., Any]:
    """Add the options of ``Engine.load``; the command gets those that were given as the dict ``load``."""
    return _gather(command, "load", _LOAD)


def sampling_options(command: Command) -> Callable[..., Any]:
    """Add the options of ``generate``; the command gets those that were given as the dict ``options``."""
    return _gather(command, "options", _SAMPLING)


def _gather(command: Command, into: str, options: tuple[Callable[[Any], Any], ...]) -> Callable[..., Any]:
    names = [parameter.name for parameter in _parameters(options)]

    @functools.wraps(command)
    def gathered(**passed: Any) -> Any:
        values = {name: passed.pop(name) for name in names}
        return command(**passed, **{into: {name: value for name, value in values.items() if value not in {None, ()}}})

    for option in reversed(options):
        gathered = option(gathered)
    return gathered


def _parameters(options: tuple[Callable[[Any], Any], ...]) -> list[click.Parameter]:
    """The parameters that the decorators would add, learned from a command made for this."""

    def probe() -> None:
        """Carry options."""

    for option in options:
        option(probe)
    return click.command(probe).params
