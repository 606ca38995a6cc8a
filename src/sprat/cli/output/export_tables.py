"""Tables of an export, made or estimated."""

from __future__ import annotations

from collections.abc import Iterable

import click

from sprat.cli.output.terminal import print_json, print_table
from sprat.devices.plan.text import headline
from sprat.export.estimate import ExportEstimate
from sprat.runtime.files.bundle import TensorGroup
from sprat.text import human_bytes, human_seconds, printable

__all__ = ["print_estimate", "print_groups"]


def print_groups(groups: Iterable[TensorGroup]) -> None:
    """One row per role and format."""
    rows = [
        (
            group.role,
            group.format
            if group.format == group.wanted
            else f"{group.format} (rows do not divide into blocks of {group.wanted})",
            group.n_tensors,
            human_bytes(group.size_bytes),
        )
        for group in groups
    ]
    print_table(("tensors", "format", "count", "size"), rows)


def print_estimate(found: ExportEstimate, *, as_json: bool) -> None:
    """The result of ``--dry-run``."""
    if as_json:
        fields = {name: getattr(found, name) for name in ExportEstimate.__dataclass_fields__ if name != "plan"}
        plan = None if found.plan is None else found.plan.summary(str(found.path))
        print_json({**fields, "missing_bytes": found.missing_bytes, "plan": plan})
        return
    click.echo(f"{found.path}: {human_bytes(found.size_bytes)}, {found.recipe}; nothing was written")
    if found.plan is not None:
        click.echo(headline(found.plan))
    print_groups(found.tensor_groups)
    print_table(
        ("file", "bytes", "size"), [(name, f"{size:,}", human_bytes(size)) for name, size in found.files.items()]
    )
    lacking = f"; {human_bytes(found.missing_bytes)} more are needed" if found.missing_bytes else ""
    click.echo(f"free on the disk: {human_bytes(found.free_bytes)}{lacking}")
    click.echo(
        f"time: about {human_seconds(found.seconds)} for {human_bytes(found.source_bytes)}, from a sample on this "
        "machine; a slow disk adds to it"
    )
    if found.quality is not None:
        click.echo(f"of it --quality {found.level}: {found.quality.text()}")
    for note in found.notes:
        click.echo(f"note: {printable(note)}")
