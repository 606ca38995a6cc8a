"""``sprat decide``."""

from __future__ import annotations

from typing import Any

import click

from sprat.cli.model_options import load_checked, load_options, template_options
from sprat.cli.output.terminal import print_json, shown
from sprat.runtime.chat.completions import Message
from sprat.runtime.generate.decision import Decision

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat decide OUT "Is the lamp on? The switch is down." --options yes,no
  sprat decide OUT "lights off in the kitchen" --options lamp,heating,door --json
  sprat decide OUT "2 + 2 = " --raw --options 3,4,5
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model")
@click.argument("prompt")
@click.option("--options", "answers", required=True, metavar="A,B", help="The answers, separated by commas.")
@click.option("--system", help="A system message before the prompt.")
@click.option("--raw", is_flag=True, help="Continue the prompt without the chat template.")
@click.option(
    "--temperature", type=float, default=1.0, show_default=True, help="Above 1, the decision is less certain."
)
@template_options
@load_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    *,
    model: str,
    prompt: str,
    answers: str,
    system: str | None,
    raw: bool,
    temperature: float,
    template: dict[str, Any],
    load: dict[str, Any],
    as_json: bool,
) -> None:
    """Print the probability of each answer to PROMPT, computed in one prefill; nothing is sampled."""
    before = [Message(role="system", content=system)] if system else []
    with load_checked(model, load, quiet=as_json) as engine:
        decision = engine.decide(
            prompt if raw else [*before, Message(role="user", content=prompt)],
            answers.split(","),
            temperature=temperature,
            **template,
        )
    if as_json:
        print_json({"probabilities": decision, "logprobs": decision.logprobs, "mass": decision.mass})
    else:
        _print(decision)


def _print(decision: Decision) -> None:
    width = max(len(shown(option)) for option in decision)
    for option, probability in decision.items():
        click.echo(f"{shown(option):{width}}  {probability:7.2%}")
    click.echo(click.style(f"[the model gives {decision.mass:.2%} to these answers]", dim=True), err=True)
