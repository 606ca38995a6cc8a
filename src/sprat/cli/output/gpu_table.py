"""The placements of a model on a GPU, as ``sprat plan`` prints them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sprat.cli.output.terminal import print_table
from sprat.devices.plan.gpu import GPUPlan
from sprat.devices.plan.placement import PlacedModel
from sprat.devices.plan.plan import Plan
from sprat.text import format_number, human_bytes

__all__ = ["best_speed", "print_placements"]

_COLUMNS = ("placement", "layers on the GPU", "experts in memory", "GPU memory", "RAM", "decode, t/s")


def print_placements(plan: Plan, card_bytes: int | None, *, whole_only: bool) -> None:
    """A table with one row per placement: nothing, the fastest that fits, everything on the GPU.

    Args:
        plan: of the model on the device.
        card_bytes: memory of the GPU that the model may use; ``None`` for all but a reserve.
        whole_only: leave out all but the last row.
    """
    found = plan.gpu(card_bytes=card_bytes)
    if found is None or found.keep_off:  # the notes say why
        return
    rows = [row for row in _rows(plan, found) if not whole_only or row[0] == "on"]
    print_table(_COLUMNS, rows)
    click.echo(
        f"predicted for llama.cpp on {found.name} ({found.api}), {human_bytes(found.card_bytes)} of its memory, with "
        f"{(found.best or found.whole).settings.text()}; "
        "no GPU was measured, the error is unknown"
    )


def best_speed(plan: Plan, card_bytes: int | None) -> str:
    """Predicted tokens per second of the fastest placement, or ``-``."""
    found = plan.gpu(card_bytes=card_bytes)
    if found is None or found.best is None:
        return "-"
    return "keep it off" if found.keep_off else format_number(1 / found.best.token_s)


def _rows(plan: Plan, found: GPUPlan) -> Iterator[tuple[str, ...]]:
    yield ("off", *(_cells(plan, found.off) if found.off else _streamed(plan)))
    if found.best is None:
        yield ("auto", "-", "-", "-", "-", "none fits without streaming")
    else:
        yield ("auto", *_cells(plan, found.best))
    speed = _cells(plan, found.whole)
    lack = found.whole.card_bytes - found.card_bytes
    yield ("on", *speed) if found.whole.fits else ("on", *speed[:-1], f"does not fit by {human_bytes(lack)}")


def _cells(plan: Plan, placed: PlacedModel) -> tuple[str, ...]:
    placement = placed.placement
    in_memory = plan.footprint.pass_cost.layers if plan.footprint.pass_cost else ()
    first = placement.n_layers - placement.layers
    stay = {index for index in range(first) if in_memory[index].experts_bytes} | {*placement.experts_in_memory}
    n_moe = sum(1 for layer in in_memory if layer.experts_bytes)
    return (
        f"{placement.layers} of {placement.n_layers}",
        f"{len(stay)} of {n_moe} layers{_ranges(stay)}" if n_moe else "-",
        human_bytes(placed.card_bytes),
        human_bytes(placed.memory_bytes),
        format_number(1 / placed.token_s),
    )


def _ranges(layers: set[int]) -> str:
    """``" (1-5, 9)"``, layers counted from 0 as in the names of tensors; nothing where there are none."""
    texts, found = [], sorted(layers)
    while found:
        length = next((n for n, index in enumerate(found) if index != found[0] + n), len(found))
        texts.append(f"{found[0]}-{found[length - 1]}" if length > 1 else str(found[0]))
        found = found[length:]
    return f" ({', '.join(texts)})" if texts else ""


def _streamed(plan: Plan) -> tuple[str, ...]:
    """Without the GPU: the plan's own prediction, with experts streamed."""
    speed = f"{format_number(plan.prediction.decode_tokens_per_s)}, streamed" if plan.prediction else "does not fit"
    return "0", "-", "-", human_bytes(plan.usable_bytes), speed
