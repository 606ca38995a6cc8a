"""``sprat devices``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sprat.cli.output.terminal import print_json, print_table, warn_left_out
from sprat.devices.profile import DeviceProfile, check_new_name, find_profile, load_profiles, save_profile
from sprat.text import format_number, human_bytes

if TYPE_CHECKING:
    from sprat.devices.probe import Probe

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat devices
  sprat devices show rpi5-8gb
  sprat devices add friend.toml
  sprat devices probe --save my-board
"""


@click.group(invoke_without_command=True, epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the device profiles, show or add one, or measure this machine."""
    if context.invoked_subcommand is None:
        profiles = load_profiles(warn_left_out)
        if as_json:
            print_json(profiles)
        else:
            _list(profiles)


@command.command(epilog="Example:  sprat devices show rpi5-8gb")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show the profile NAME (or a TOML file): every value with its basis and source."""
    profile = find_profile(name)
    if as_json:
        print_json(profile)
        return
    click.echo(f"{profile.title} ({profile.soc})")
    print_table(("field", "value", "basis", "source"), _fields(msgspec.to_builtins(profile)))


@command.command(epilog="Example:  sprat devices add friend.toml")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def add(file: Path, as_json: bool) -> None:
    """Check the profile in FILE and keep it, so that --device takes its name."""
    profile = find_profile(file)
    path = save_profile(profile)
    if as_json:
        print_json({"name": profile.name, "path": path})
    else:
        click.echo(f"saved as {path}; next:  sprat plan MODEL --device {profile.name}")


@command.command(epilog="Example:  sprat devices probe --save my-board --folder /mnt/models")
@click.option("--save", "name", help="Save the result as a profile of this name.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="A folder on the storage to measure. 256 MB are written and removed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def probe(name: str | None, folder: Path, as_json: bool) -> None:
    """Measure this machine, in under a minute: memory, sprat's kernels, storage, temperature."""
    from sprat.devices.probe import BUSY_SHARE
    from sprat.devices.probe import probe as measure
    from sprat.runtime.kernels.rates import measure_rates

    if name:
        check_new_name(name)
    found = measure(
        name or "this-machine", folder, measure_rates, lambda step: click.echo(f"measuring {step}", err=True)
    )
    path = save_profile(found.profile) if name else None
    if found.busy_share and found.busy_share > BUSY_SHARE:
        click.echo(
            f"note: other programs used {found.busy_share:.0%} of the cores: the rates are too low, and so are "
            "predictions from them; stop the programs and probe again",
            err=True,
        )
    if as_json:
        print_json(found)
        return
    _print_probe(found)
    if path:
        click.echo(f"saved as {path}; next:  sprat plan MODEL --device {name}")
    else:
        click.echo("next:  sprat devices probe --save NAME   then:  sprat plan MODEL --device NAME")


def _print_probe(found: Probe) -> None:
    kernels = found.kernels
    click.echo(f"measured: {found.profile.title}")
    rows = [(f"memory, {n} threads", f"{rate / 1e9:.3g} GB/s") for n, rate in found.read_bytes_per_s.items()]
    rows += [
        (f"{kernels.name} kernels, int4 GEMM, 512 tokens", f"{format_number(kernels.int8_ops_per_s / 1e9)} GOP/s"),
        (
            f"{kernels.name} kernels, int4 GEMV, in cache",
            f"{format_number(kernels.one_token_ops_per_s / 1e9)} GOP/s",
        ),
        (f"{kernels.name} kernels, attention in float32", f"{format_number(kernels.f32_ops_per_s / 1e9)} GFLOP/s"),
        (f"{kernels.name} kernels, overhead of a call", f"{kernels.call_s * 1e6:.3g} us"),
        ("temperature, before and after", f"{_celsius(found.celsius_before)}, {_celsius(found.celsius_after)}"),
    ]
    print_table(("measured", "value"), rows)
    storage = [
        (
            human_bytes(rate.block_bytes),
            format_number(rate.sequential_bytes_per_s / 1e6),
            format_number(rate.random_bytes_per_s / 1e6),
            format_number(rate.cached_bytes_per_s / 1e6),
        )
        for rate in found.storage
    ]
    print_table(("read size", "sequential MB/s", "random MB/s", "random, page cache MB/s"), storage)


def _celsius(value: float | None) -> str:
    return "no sensor" if value is None else f"{value:.1f} °C"


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
    print_table(("device", "description", "cores", "usable memory", "bandwidth", "storage"), rows)


def _fields(record: Any, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every field of a profile as a row: name, value, and basis and source where it has them."""
    if isinstance(record, dict) and "basis" in record:
        yield path, f"{record['value']:,.14g}", record["basis"], record["source"]
    elif isinstance(record, dict):
        for key, value in record.items():
            yield from _fields(value, f"{path}.{key}" if path else key)
    elif isinstance(record, list | tuple) and isinstance(record[0], dict):
        for index, value in enumerate(record):
            yield from _fields(value, f"{path}[{index}]")
    elif record is not None:
        yield path, " ".join(record) if isinstance(record, list | tuple) else str(record), "", ""
