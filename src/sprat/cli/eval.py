"""``sprat eval``."""

from __future__ import annotations

import shlex
from typing import Any

import click

from sprat.app.evaluate import TASKS, Evaluation, evaluate
from sprat.cli.model_options import load_checked, load_options
from sprat.cli.output.terminal import print_json, print_table, progress_bar

__all__ = ["command"]

_EPILOG = """\b
Each problem is one user message, answered greedily. Text inside
<think>…</think> is not scored. The tasks and their expected answers:
\b
  arithmetic  "What is 347 + 285?", "Which is larger, 417 or 471?", "Tom has
              12 apples. He buys 30 more. How many …?" Numbers up to 999.
              Answer: a number, a name, yes or no, and nothing else.
  home        "Could you dim the bedroom light to 40 percent in ten minutes?"
              {"device":"light","room":"bedroom","action":"set","value":40,
              "unit":"percent","delay":"10m"} on one line, without spaces;
              room, value and unit may be null, delay may be missing.
  prose       "Tell me about clouds." Perplexity and next-token accuracy on a
              reference answer.
\b
Examples:
  sprat eval demo --task arithmetic --n 200
  sprat eval OUT --task home --json
  sprat eval OUT --task home --split unseen --backend llamacpp
"""


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--task", type=click.Choice(TASKS), required=True, help="The task.")
@click.option(
    "--n", type=click.IntRange(min=1), default=1000, show_default=True, help="Number of problems (prose: texts)."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the problem generator.")
@click.option(
    "--split",
    type=click.Choice(["held_out", "unseen"]),
    default="held_out",
    show_default=True,
    help="New content in the phrasings of the training set, or phrasings that were never trained on.",
)
@load_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(*, model: str, task: str, n: int, seed: int, split: str, load: dict[str, Any], as_json: bool) -> None:
    """Score MODEL (a bundle, a model file, a checkpoint or `demo`) on a task of the packaged student."""
    with load_checked(model, load, quiet=as_json) as engine, progress_bar(f"eval {task}", quiet=as_json) as bar:
        result = evaluate(engine, task, n=n, seed=seed, split=split, progress=bar)
    if as_json:
        print_json(result)
    else:
        _print(result, model)


def _print(result: Evaluation, model: str) -> None:
    low, high = result.interval
    what = "tokens predicted" if result.task == "prose" else "exactly right"
    click.echo(f"{result.task}: {result.exact_match:.1%} {what} of {result.n} (95 %: {low:.1%} to {high:.1%})")
    if result.valid_json is not None:
        click.echo(f"valid JSON: {result.valid_json:.1%}")
    if result.perplexity is not None:
        click.echo(f"perplexity: {result.perplexity:.2f} per token")
    if result.kinds:
        print_table(("kind", "right", "asked"), ((kind, *counts) for kind, counts in result.kinds.items()))
    if model == "demo":
        click.echo(
            f"next:  sprat export demo OUT --device rpi5-8gb --quant int4   then:  sprat eval OUT --task {result.task}"
        )
    else:
        click.echo(f"next:  sprat verify {shlex.quote(model)} --source SOURCE")
