"""``sprat eval``."""

from __future__ import annotations

import shlex
from typing import Any

import click

from sprat.app.evaluate import TASKS, Evaluation, evaluate
from sprat.cli.model_options import load_checked, load_options
from sprat.cli.output.terminal import print_json, print_table, progress_bar
from sprat.text import printable

__all__ = ["command"]

_SHOWN, _WIDTH = 5, 200  # wrong replies, and characters of each

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
Your own questions (--file) are JSON lines; match is exact (the default),
contains or regex:
  {"prompt": "What is 2 + 3?", "answer": "5"}
  {"prompt": "Name a primary colour.", "answer": ["red", "blue", "yellow"],
   "match": "contains", "kind": "facts", "system": "Answer briefly."}
\b
Examples:
  sprat eval demo --task arithmetic --n 200
  sprat eval OUT --task home --json
  sprat eval OUT --task home --split unseen --backend llamacpp
  sprat eval OUT --file questions.jsonl
"""


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--task", type=click.Choice(TASKS), help="A task of the packaged student.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False), help="Your own questions, as JSON lines.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest reply to a question of --file [1024].")
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
def command(
    *,
    model: str,
    task: str | None,
    file: str | None,
    max_tokens: int | None,
    n: int,
    seed: int,
    split: str,
    load: dict[str, Any],
    as_json: bool,
) -> None:
    """Score MODEL (a bundle, a model file, a checkpoint or `demo`) on a task, or on your own questions."""
    if (task is None) == (file is None):
        raise click.UsageError("give either --task or --file")
    bar = progress_bar(f"eval {task or file}", quiet=as_json)
    with load_checked(model, load, quiet=as_json) as engine, bar as show:
        result = evaluate(engine, task, file=file, max_tokens=max_tokens, n=n, seed=seed, split=split, progress=show)
    if as_json:
        print_json(result)
    else:
        _print(result, model)


def _print(result: Evaluation, model: str) -> None:
    low, high = result.interval
    what = "tokens predicted" if result.task == "prose" else "right" if result.replies else "exactly right"
    click.echo(
        f"{printable(result.task)}: {result.exact_match:.1%} {what} of {result.n} (95 %: {low:.1%} to {high:.1%})"
    )
    if result.valid_json is not None:
        click.echo(f"valid JSON: {result.valid_json:.1%}")
    if result.perplexity is not None:
        click.echo(f"perplexity: {result.perplexity:.2f} per token")
    if result.kinds:
        print_table(("kind", "right", "asked"), ((kind, *counts) for kind, counts in result.kinds.items()))
    wrong = [found for found in result.replies if not found.right]
    for found in wrong[:_SHOWN]:
        click.echo(printable(f"wrong: {found.prompt!r}: {found.reply[:_WIDTH]!r}, expected {found.expected[0]!r}"))
    if len(wrong) > _SHOWN:
        click.echo(f"… and {len(wrong) - _SHOWN} more; --json lists every reply")
    if model == "demo" and not result.replies:
        click.echo(
            f"next:  sprat export demo OUT --device rpi5-8gb --quant int4   then:  sprat eval OUT --task {result.task}"
        )
    else:
        click.echo(f"next:  sprat verify {shlex.quote(model)} --source SOURCE")
