"""``sprat inspect``."""

from __future__ import annotations

import click

from sprat.app.inspect import inspect
from sprat.cli.model_options import ignore_config_field_option
from sprat.cli.output.terminal import print_json, print_table, progress_bar
from sprat.export.inspection import Inspection
from sprat.runtime.backends.providers.placement import ProviderUse
from sprat.text import human_bytes, printable

__all__ = ["command"]


@click.command(epilog="Example:  sprat inspect SmolLM2-135M-Instruct.Q4_1.gguf")
@click.argument("path")
@click.option(
    "--check",
    is_flag=True,
    help="Read every byte: fail where a bundle's hashes differ, and on weights of a GGUF that are NaN or Inf.",
)
@click.option(
    "--provider",
    metavar="NAME",
    help="Run an ONNX model with this provider of onnxruntime (webgpu, cuda, ...): the nodes that fall back to the "
    "CPU, and how far the logits are from the CPU's.",
)
@ignore_config_field_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: str, check: bool, provider: str | None, ignore_config_fields: tuple[str, ...], as_json: bool) -> None:
    """Show what PATH is (a bundle, a model file, a checkpoint or `demo`) and where its bytes go.

    Only headers are read, except with --check and --provider.
    """
    with progress_bar("checking", quiet=as_json or not check, in_bytes=True) as bar:
        inspection = inspect(
            path, check=check, provider=provider, ignore_config_fields=ignore_config_fields, progress=bar
        )
    if as_json:
        print_json(inspection)
    else:
        _print(inspection)


def _print(found: Inspection) -> None:
    size = f"{human_bytes(found.nbytes)}, {found.bits_per_weight:.2f} bits per weight"
    architecture = printable(found.architecture)
    click.echo(
        f"{found.kind}: {printable(found.name)}, {found.n_weights / 1e6:,.1f}M weights of {architecture}, {size}"
    )
    cache = f"{human_bytes(found.cache_bytes_per_token)} of {found.cache_kind} per token in f16"
    click.echo(f"{found.n_layers} layers, context up to {found.max_context:,} tokens, {cache}")
    rows = [
        (
            use.role,
            use.format,
            use.n_tensors,
            f"{use.n_weights:,}",
            human_bytes(use.nbytes),
            f"{use.bits_per_weight:.2f}",
        )
        for use in found.tensors
    ]
    print_table(("tensors", "format", "count", "weights", "size", "bits/weight"), rows)
    for runtime in found.runtimes:
        click.echo(f"{'loads in' if runtime.loads else 'does not load in'} {runtime.name}: {printable(runtime.why)}")
    for note in found.notes:
        click.echo(f"note: {printable(note)}")
    if found.provider:
        _print_provider(found.provider)


def _print_provider(use: ProviderUse) -> None:
    version = f" (onnxruntime {use.version})" if use.version else ""
    click.echo(f"\n{use.provider}{version} computes {use.n_nodes:,} nodes, the CPU {use.n_fallback_nodes:,}:")
    rows = [(nodes.operator, nodes.name, nodes.n_nodes) for nodes in use.fallback]
    print_table(("on the CPU", "nodes", "count"), rows)
    if use.problem:
        click.echo(f"fails: {printable(use.problem)}")
    else:
        click.echo(
            f"logits differ from the CPU's by {use.prompt_error:.1e} of the largest in a prompt, "
            f"{use.decode_error:.1e} token by token"
        )
