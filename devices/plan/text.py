"""A plan in sentences: its headline and its notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from sprat.devices.plan.footprint import AS_IT_IS, Footprint
from sprat.devices.plan.plan import Plan, Verdict
from sprat.text import format_number, human_bytes

__all__ = ["headline", "notes", "smaller_choice"]


def headline(plan: Plan) -> str:
    """One line: whether it fits, and by how much."""
    footprint = plan.footprint
    verdict = f"{_subject(footprint)} {plan.verdict} on {plan.profile.name}"
    return f"{verdict}: {_margin(plan)} at a context of {footprint.context:,} tokens"


def notes(plan: Plan) -> list[str]:
    """The GPU, throttling, and what ``--force`` would do."""
    return [*_about_gpu(plan), *(_about_throttling(plan) if plan.runs else _about_force(plan))]


def smaller_choice(plan: Plan, footprints: Sequence[Footprint]) -> Iterator[str]:
    """Gain from the next smaller quantization: a plan takes the most accurate one that fits, not the fastest.

    Args:
        plan: of the one that was chosen.
        footprints: of all, the best quality first.
    """
    smaller = footprints[plan.index_in(footprints) + 1 :]
    if not smaller or not plan.runs:
        return
    other = dataclasses.replace(plan, footprint=smaller[0])
    speeds = ""
    if plan.prediction and other.prediction:
        rates = (found.decode_tokens_per_s for found in (other.prediction, plan.prediction))
        faster, chosen = map(format_number, rates)
        speeds = f" and decodes {faster} tokens/s in place of {chosen} (predicted)"
    yield (
        f"{_subject(plan.footprint)} is the most accurate that fits; {other.footprint.quant} takes "
        f"{human_bytes(other.footprint.total_bytes)} in place of {human_bytes(plan.footprint.total_bytes)}{speeds}: "
        f"--quant {other.footprint.quant}"
    )


def _subject(footprint: Footprint) -> str:
    return "the file" if footprint.quant == AS_IT_IS else footprint.quant


def _margin(plan: Plan) -> str:
    match plan.verdict:
        case Verdict.FITS:
            return f"{human_bytes(plan.spare_bytes)} to spare"
        case Verdict.STREAMED:
            resident = f"{100 * plan.held_experts_share:.0f} % of the experts in memory"
            return f"{resident}, {human_bytes(-plan.spare_bytes)} too large to hold all"
    streamed = " with experts streamed" if plan.missing_from == "memory" and _streams(plan) else ""
    return f"{human_bytes(plan.missing_bytes)} more {plan.missing_from} needed{streamed}"


def _streams(plan: Plan) -> bool:
    """Whether experts can be streamed, so that less than all of the model must be in memory."""
    return plan.footprint.least_bytes < plan.footprint.total_bytes


def _about_gpu(plan: Plan) -> Iterator[str]:
    found = plan.graphics
    if found is None:
        return
    if plan.profile.accelerator and (why := plan.profile.accelerator.keep_off):
        yield f"keep {found.name} off: {why}"
        return
    on_gpu = plan.gpu()
    if on_gpu is not None and not on_gpu.whole.fits:
        lack = human_bytes(on_gpu.whole.card_bytes - on_gpu.card_bytes)
        fit = f"lacks {lack} to hold the whole model in {plan.footprint.quant} with its buffers"
    elif found.spare_bytes < 0:
        fit = f"lacks {human_bytes(-found.spare_bytes)} to hold the whole model in {plan.footprint.quant}"
    elif found.most_tokens_per_s is None:
        fit = f"would hold the whole model with {human_bytes(found.spare_bytes)} to spare"
    else:
        fit = (
            f"would hold the whole model with {human_bytes(found.spare_bytes)} to spare, for at most "
            f"{format_number(found.most_tokens_per_s)} tokens/s (assumed: peak bandwidth, and only weights are read)"
        )
    yield (
        f"{found.name} {fit}; --gpu uses it with a llama-cpp-python that is built for {found.api} (docs/gpu.md), "
        "the native backend runs on the CPU"
    )


def _about_throttling(plan: Plan) -> Iterator[str]:
    share = plan.profile.thermal.sustained_share if plan.profile.thermal else None
    if share and share.value < 1:
        yield f"after some minutes throttling leaves about {100 * share.value:.0f} % of the speed ({share.basis})"


def _about_force(plan: Plan) -> Iterator[str]:
    if plan.storage is None:
        yield f"no storage device of the profile holds the weights ({human_bytes(plan.footprint.weight_bytes)})"
    elif plan.footprint.pass_cost:
        seconds = plan.footprint.pass_cost.bytes_per_token / (1e6 * plan.storage.sequential_mbps.value)
        yield (
            f"with --force every token reads weights from {plan.storage.kind} again: up to {seconds:,.1f} s per token, "
            "and other programs become slow as well"
        )
