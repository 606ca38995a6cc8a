"""Output that the commands share: tables, progress bars, JSON."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from sprat.progress import Progress, ReportProgress, no_progress
from sprat.text import human_bytes, printable

__all__ = ["accept_any_text", "print_json", "print_table", "progress_bar", "shown", "warn_left_out"]

_PLAIN_WIDTH = 200
_PLAIN_LINES = 10  # without a terminal: one line at every 10 %


def accept_any_text() -> None:
    """Write characters that the encoding of the terminal lacks as escapes, as Python does, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def shown(text: str) -> str:
    """Text of a model for standard output: on a terminal without control characters, which could take it over."""
    return printable(text) if sys.stdout.isatty() else text


def warn_left_out(error: Exception) -> None:
    """Print one line on standard error about an item that is left out of the output."""
    click.echo(f"sprat: left out: {printable(str(error))}", err=True)


def print_json(record: Any) -> None:
    """Print a record (msgspec struct, dataclass, dict, path) as one line of JSON, in UTF-8, on standard output."""
    import msgspec

    click.echo(msgspec.json.encode(record, enc_hook=str))


def print_table(columns: Sequence[str], rows: Iterable[Iterable[object]], *, markdown: bool = False) -> None:
    """Print a table: markdown if requested or if standard output is not a terminal.

    Columns of numbers are right-aligned.
    """
    from rich.box import MARKDOWN, SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(str(cell)) for cell in row] for row in rows]  # names of tensors and devices among them
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    table = Table(box=SIMPLE_HEAD if console.is_terminal and not markdown else MARKDOWN)
    for index, column in enumerate(columns):
        numbers = all(row[index][:1].isdigit() for row in cells)
        table.add_column(Text(column), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # a str would be read as markup: "[/x]"
    with console.capture() as text:  # rich ends the program without a message when a pipe is closed
        console.print(table)
    click.echo(text.get(), nl=False)


@contextmanager
def progress_bar(label: str, *, quiet: bool = False, in_bytes: bool = False) -> Iterator[ReportProgress]:
    """A callback that draws a bar on a terminal, and elsewhere prints a line at every 10 %.

    It writes to standard error, so that standard output holds only results.

    Args:
        label: what is being done.
        quiet: show nothing.
        in_bytes: progress is counted in bytes, which are shown.
    """
    if quiet:
        yield no_progress
    elif sys.stderr.isatty():
        yield from _terminal_bar(label, in_bytes=in_bytes)
    else:
        yield _plain_lines(label, in_bytes=in_bytes)


def _terminal_bar(label: str, *, in_bytes: bool) -> Iterator[ReportProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        *((DownloadColumn(),) if in_bytes else ()),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, what="")

        def show(state: Progress) -> None:
            if state.note:
                bar.console.print(printable(state.note), markup=False, highlight=False)
            bar.update(task, completed=state.done, total=state.total, what=printable(state.what))

        yield show


def _plain_lines(label: str, *, in_bytes: bool) -> ReportProgress:
    shown = 0

    def show(state: Progress) -> None:
        nonlocal shown
        if state.note:
            click.echo(f"{label}: {printable(state.note)}", err=True)
        reached = int(_PLAIN_LINES * state.done / state.total) if state.total else _PLAIN_LINES
        if reached > shown:
            size = f" {human_bytes(int(state.done))} of {human_bytes(int(state.total))}" if in_bytes else ""
            click.echo(f"{label}: {reached / _PLAIN_LINES:.0%}{size} {printable(state.what)}", err=True)
        shown = reached  # smaller than before when the next file begins

    return show
