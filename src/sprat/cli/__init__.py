"""The ``sprat`` command: one module per subcommand, imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from sprat.boundary import plain_errors
from sprat.cli.output.messages import make_messages_best_effort
from sprat.cli.output.terminal import accept_any_text
from sprat.cli.output.write_errors import check_output, discard_unwritten, report_write_errors
from sprat.errors import SpratError, unknown_name
from sprat.text import one_line

__all__ = ["main"]

# Command: its line in ``sprat --help``. Here, so that help imports none of the modules: start-up is slow on a Pi.
_COMMANDS = {
    "export": "Export a checkpoint to a quantized bundle for one device.",
    "quantize": "Requantize a GGUF file.",
    "inspect": "Show what a model is, where its bytes go, and what loads it.",
    "verify": "Compare a bundle with its source: perplexity, KL divergence, routing overlap.",
    "run": "Answer one prompt.",
    "chat": "Chat with a model.",
    "serve": "Serve models over HTTP: OpenAI's API and a chat page.",
    "decide": "Print how probable each of several answers is.",
    "eval": "Score a model on a task, or on your own questions.",
    "demo": "Export, verify and run the packaged student.",
    "plan": "Show whether a model fits a device and its predicted speed, before any download.",
    "frontier": "Measure KL divergence by file size, beside llama-quantize's files.",
    "bench": "Measure the speed of a model here, or under the limits of an emulated device.",
    "report": "Draw results and plans as one page: speed, TTFT, context, memory, errors of predictions.",
    "devices": "List the device profiles, show one, or measure this machine.",
    "doctor": "Show what this machine can run, and what is missing.",
}

_FOLDERS = {
    "artifacts": ["export", "quantize", "inspect", "verify", "frontier"],
    "answers": ["run", "chat", "serve", "decide", "eval", "demo"],
    "boards": ["plan", "bench", "report", "devices", "doctor"],
}

# What users of other programs type, and what does it here.
_INSTEAD = {
    "ask": "sprat run MODEL PROMPT answers one",
    "benchmark": "sprat bench measures",
    "complete": "sprat run MODEL PROMPT --raw continues a prompt",
    "convert": "sprat export converts and quantizes a checkpoint",
    "download": "sprat downloads nothing; hf download ORG/NAME fetches a model",
    "generate": "sprat run MODEL PROMPT --raw continues a prompt",
    "help": "sprat --help lists the commands, sprat COMMAND --help explains one",
    "info": "sprat inspect shows a model, sprat doctor this machine",
    "list": "sprat devices lists devices; models are your own folders and files",
    "perplexity": "sprat verify OUT --source SOURCE prints it",
    "ps": "sprat runs nothing in the background",
    "pull": "sprat downloads nothing; hf download ORG/NAME fetches a model",
    "rm": "a bundle is a folder; remove it with rm -r",
    "show": "sprat inspect shows a model, sprat devices show a device",
    "version": "sprat --version prints it",
}

_EXAMPLES = """\b
Examples:
  sprat plan deepseek-v2-lite --all
  sprat export DeepSeek-V2-Lite-Chat out --device rpi5-8gb
  sprat verify out --source DeepSeek-V2-Lite-Chat
  sprat run out "What is 17 + 25?"
"""


class _LazyGroup(click.Group):
    """A group whose commands are ``sprat.cli.<folder>.<name>.command``."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with report_write_errors():  # --help and --version print here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with report_write_errors():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            message = unknown_name("command", args[0], _COMMANDS)
            if instead := _INSTEAD.get(args[0].casefold()):
                message = f"unknown command {args[0]!r}: {instead}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        folder = next(folder for folder, names in _FOLDERS.items() if cmd_name in names)
        module = importlib.import_module(f"sprat.cli.{folder}.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EXAMPLES,
)
@click.version_option(package_name="sprat")
def group() -> None:
    """Deploy DeepSeek students on edge devices: export, verify, plan and run them."""


def main(args: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 success, 1 failed verification, 2 user error, with one line on stderr."""
    make_messages_best_effort()
    accept_any_text()
    try:
        with plain_errors():
            check_output()
            group.main(args=args, prog_name="sprat", standalone_mode=False)
    except SpratError as error:
        discard_unwritten()
        click.echo(f"sprat: {one_line(str(error))}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as interruption:
        detail = str(interruption.__cause__ or interruption)  # click raises Abort from KeyboardInterrupt
        click.echo(f"sprat: interrupted{f'; {detail}' if detail else ''}", err=True)
        sys.exit(130)


def _show(error: click.ClickException) -> None:
    """Print one line, as for every user error; the help that ``sprat`` alone prints has many."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if "\n" in message or context is None:
        error.show()
    else:
        click.echo(f"sprat: {message.rstrip('.')}; see {context.command_path} --help", err=True)
