"""What a plan says to a person: its headline, its notes, and why it is refused."""

from __future__ import annotations

from collections.abc import Iterator

from sprat.devices.plan.plan import Plan, Verdict
from sprat.text import format_number

__all__ = ["headline", "notes", "refusal"]


def headline(plan: Plan) -> str:
    """One line: fits or not, and by how much."""
    footprint = plan.footprint
    relation = f"{footprint.quant} {plan.verdict} on {plan.profile.name}"
    return f"{relation}: {_margin(plan)} at a context of {footprint.context:,} tokens"


def notes(plan: Plan) -> list[str]:
    """What the verdict leaves out."""
    return [*_about_graphics(plan), *(_about_heat(plan) if plan.runs else _about_force(plan))]


def refusal(plan: Plan) -> str:
    """The message for a plan that does not fit: what is missing, and what would help."""
    footprint = plan.footprint
    return (
        f"{headline(plan)}: it needs {footprint.total_bytes:,} bytes ({footprint.weight_bytes:,} of weights, "
        f"{footprint.cache_bytes:,} of cache, {footprint.buffer_bytes:,} of buffers), and {plan.usable_bytes:,} of "
        f"{int(plan.profile.memory.total_bytes.value):,} are usable; {_remedy(plan)}, or go on with --force: "
        "every token then waits for storage"
    )


def _margin(plan: Plan) -> str:
    match plan.verdict:
        case Verdict.FITS:
            return f"{plan.spare_bytes:,} bytes to spare"
        case Verdict.STREAMED:
            held = f"{100 * plan.held_experts_share:.0f} % of the experts in memory"
            return f"{held}, {-plan.spare_bytes:,} bytes too large to hold all"
    return f"{plan.missing_bytes:,} bytes too large"


def _remedy(plan: Plan) -> str:
    footprint = plan.footprint
    if plan.storage is None:
        return "no storage of it holds the weights: use a smaller model"
    left = plan.usable_bytes - footprint.least_bytes + footprint.cache_bytes
    shorter = max(left, 0) // max(footprint.cache_bytes_per_token, 1)
    return (
        f"a context of {shorter:,} tokens would fit" if shorter else "no context is short enough: use a smaller model"
    )


def _about_graphics(plan: Plan) -> Iterator[str]:
    found = plan.graphics
    if found is None:
        return
    if found.spare_bytes < 0:
        fit = f"lacks {-found.spare_bytes:,} bytes to hold all of it in {plan.footprint.quant}"
    elif found.most_tokens_per_s is None:
        fit = f"would hold all of it with {found.spare_bytes:,} bytes to spare"
    else:
        fit = (
            f"would hold all of it with {found.spare_bytes:,} bytes to spare, and give at most "
            f"{format_number(found.most_tokens_per_s)} tokens/s (assumed: its peak, and a token reads weights alone)"
        )
    yield (
        f"{found.name} {fit}; sprat's own engine computes on the processor, and a llama-cpp-python built for "
        f"{found.api} would use it"
    )


def _about_heat(plan: Plan) -> Iterator[str]:
    share = plan.profile.thermal.sustained_share if plan.profile.thermal else None
    if share and share.value < 1:
        yield f"after some minutes heat leaves about {100 * share.value:.0f} % of the speed ({share.basis})"


def _about_force(plan: Plan) -> Iterator[str]:
    if plan.storage is None:
        yield f"no storage in the profile holds the {plan.footprint.weight_bytes:,} bytes of weights"
    elif plan.footprint.work:
        seconds = plan.footprint.work.bytes_per_token / (1e6 * plan.storage.sequential_mbps.value)
        yield (
            f"with --force the system reads weights from {plan.storage.kind} again and again: up to {seconds:,.1f} s "
            "for a token, and other programs slow down with it"
        )
