"""The ``sprat`` command: one module per subcommand, imported only when it is called."""

from __future__ import annotations

import importlib
import sys

import click

from sprat.errors import SpratError

__all__ = ["main"]

# Command -> its line in ``sprat --help``. Held here so that help imports none of the modules: start-up time on a Pi.
_COMMANDS = {
    "export": "Turn a checkpoint into a verified bundle for one device.",
    "quantize": "Quantize a GGUF file into another.",
    "inspect": "Say what a file, bundle or checkpoint is, and where its bytes go.",
    "verify": "Compare a bundle with its source: perplexity, KL divergence, chosen experts.",
    "run": "Answer one prompt.",
    "chat": "Talk with a model.",
    "eval": "Score a model on the tasks of the packaged student.",
    "demo": "Show the whole way of a model to a small board, on the packaged student.",
    "plan": "Say whether a model fits a device, and how fast it would be, before any download.",
    "bench": "Measure how fast a model runs here, or under the limits of a device.",
    "report": "Draw results and plans as one page: speed, first token, context, memory, accuracy, heat.",
    "devices": "List the device profiles, show one, or measure this machine.",
    "doctor": "Say what this machine can run, and what is missing.",
}


class _LazyGroup(click.Group):
    """A group whose commands live in ``sprat.cli.<name>`` as ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"sprat.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with:  sprat export SOURCE OUT --device rpi5-8gb   then:  sprat run OUT 'a prompt'",
)
@click.version_option(package_name="sprat")
def group() -> None:
    """Carry DeepSeek students to the edge: export, verify and run them on small devices."""


def main(args: list[str] | None = None) -> None:
    """Run the command line: exit 0 on success, 1 on a failed verdict, 2 with one line on an error of the user's."""
    try:
        group.main(args=args, prog_name="sprat", standalone_mode=False)
    except SpratError as error:
        click.echo(f"sprat: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("sprat: interrupted", err=True)
        sys.exit(130)


def _show(error: click.ClickException) -> None:
    """Print one line, as for every error of the user's; ``sprat`` alone is help, of many lines."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if "\n" in message or context is None:
        error.show()
    else:
        click.echo(f"sprat: {message.rstrip('.')}; see {context.command_path} --help", err=True)
