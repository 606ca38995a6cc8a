"""``sprat serve``."""

from __future__ import annotations

from typing import Any

import click

from sprat.cli.model_options import load_options
from sprat.cli.output.terminal import shown
from sprat.server.serve import serve

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat serve demo
  sprat serve OUT --port 9000 --max-tokens 512 --timeout 60
  sprat serve small=OUT large=OUT2 --memory 3GB --keep-alive 300
  SPRAT_API_KEY=secret sprat serve OUT --host 0.0.0.0

\b
OpenAI's client then needs no change:
  export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=unused
"""


@click.command(epilog=_EXAMPLES)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need an API key.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 for any free one.")
@click.option("--api-key", envvar="SPRAT_API_KEY", show_envvar=True, help="Key that every request must carry.")
@click.option("--origin", "origins", multiple=True, help="Another web origin whose pages may send requests.")
@click.option("--parallel", type=click.IntRange(min=1), default=4, show_default=True, help="Answers at a time.")
@click.option("--queue", type=click.IntRange(min=0), default=16, show_default=True, help="Requests that may wait.")
@click.option(
    "-n", "--max-tokens", type=click.IntRange(min=1), help="Most tokens of any answer. [default: the context]"
)
@click.option("--timeout", type=float, default=600, show_default=True, help="Seconds that an answer may take.")
@click.option("--keep-alive", type=float, help="Unload a model that is not used for so many seconds. [default: never]")
@load_options
def command(*, models: tuple[str, ...], load: dict[str, Any], **options: Any) -> None:
    """Serve MODELs (bundles, model files, checkpoints or `demo`) over HTTP, with OpenAI's API and a chat page.

    --memory is the limit for all models together. Requests of one model are answered together; docs/server.md has the
    routes and limits.
    """
    serve(models, on_ready=_say_where, **options, **load)


def _say_where(address: str) -> None:
    click.echo(f"sprat: {shown(address)}/v1 answers, {shown(address)} is a chat page; Ctrl-C ends it", err=True)
