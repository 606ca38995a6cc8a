"""``sprat devices``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from sprat.cli.terminal import human_bytes, print_json, print_table
from sprat.devices.profile import DeviceProfile, load_profile, profile_names

__all__ = ["command"]


@click.group(invoke_without_command=True, epilog="Example:  sprat devices show rpi5-8gb")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the device profiles, or show one."""
    if context.invoked_subcommand is None:
        profiles = [load_profile(name) for name in profile_names()]
        if as_json:
            print_json(profiles)
        else:
            _list(profiles)


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show the profile NAME: every figure, how it became known, and its source."""
    profile = load_profile(name)
    if as_json:
        print_json(profile)
        return
    click.echo(f"{profile.title} ({profile.soc})")
    print_table(("figure", "value", "basis", "source"), _figures(msgspec.to_builtins(profile)))


def _list(profiles: list[DeviceProfile]) -> None:
    rows = [
        (
            profile.name,
            profile.title,
            " + ".join(f"{cores.count} x {cores.kind}" for cores in profile.cores),
            human_bytes(profile.usable_bytes),
            f"{(profile.memory.sustained_gbps or profile.memory.peak_gbps).value:g} GB/s",
            ", ".join(storage.kind for storage in profile.storage),
        )
        for profile in profiles
    ]
    print_table(("device", "what it is", "cores", "for a model", "memory speed", "storage"), rows)


def _figures(record: Any, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every leaf of a profile as a row: figures with basis and source, plain values without."""
    if isinstance(record, dict) and "basis" in record:
        yield path, f"{record['value']:,.10g}", record["basis"], record["source"]
    elif isinstance(record, dict):
        for key, value in record.items():
            yield from _figures(value, f"{path}.{key}" if path else key)
    elif isinstance(record, list | tuple) and isinstance(record[0], dict):
        for index, value in enumerate(record):
            yield from _figures(value, f"{path}[{index}]")
    elif record is not None:
        yield path, " ".join(record) if isinstance(record, list | tuple) else str(record), "", ""
