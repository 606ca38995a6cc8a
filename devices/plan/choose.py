"""The best quantization of a model that fits a device."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.plan import BATCHES, DEFAULT_PROMPT, Plan
from sprat.devices.plan.refusal import refusal
from sprat.devices.profile import DeviceProfile
from sprat.errors import DoesNotFitError
from sprat.text import human_bytes

__all__ = ["best_plan", "choose_quant"]


def best_plan(
    footprints: Sequence[Footprint],
    profile: DeviceProfile,
    *,
    usable_bytes: int | None = None,
    prompt_tokens: int = DEFAULT_PROMPT,
) -> Plan:
    """The plan for the first of ``footprints`` (best quality first) that fits ``profile`` without streaming.

    One that does not fit is tried with fewer tokens of a forward pass, down to 32, before the next one. If none fits,
    the plan for the smallest: it streams the fewest experts, or lacks the fewest bytes.

    Args:
        footprints: of one model, at least one.
        profile: the device.
        usable_bytes: memory that the model may use; by default the usable memory of the profile.
        prompt_tokens: length of the prompt for which the time to first token is predicted.
    """
    usable_bytes = profile.usable_bytes if usable_bytes is None else usable_bytes
    plans = [
        Plan(profile, footprint.of_batch(batch), usable_bytes, prompt_tokens)
        for footprint in footprints
        for batch in _batches(footprint)
    ]
    return next((plan for plan in plans if plan.fits), max(plans, key=lambda plan: plan.spare_bytes))


def _batches(footprint: Footprint) -> list[int]:
    """The batch of the footprint, then shorter ones where these take less memory."""
    shorter = [size for size in BATCHES if size < footprint.batch] if footprint.activation_bytes else []
    return [footprint.batch, *shorter]


def choose_quant(
    footprints: Sequence[Footprint],
    profile: DeviceProfile,
    *,
    usable_bytes: int | None = None,
    force: bool = False,
) -> Plan:
    """:func:`best_plan`, or an error when nothing fits.

    Args:
        footprints: of one model, at least one.
        profile: the device.
        usable_bytes: as for :func:`best_plan`.
        force: return the plan for the smallest footprint instead of raising.

    Raises:
        DoesNotFitError: none fits, even with experts streamed; the message has the sizes and a context that fits.
    """
    plan = best_plan(footprints, profile, usable_bytes=usable_bytes)
    if plan.runs or force:
        return plan
    raise DoesNotFitError(f"{_why_not(plan)}; --force goes on anyway, and every token then reads weights from storage")


def _why_not(plan: Plan) -> str:
    subject = f"the model ({plan.footprint.quant}) on {plan.profile.name}"
    if plan.storage is None:
        return (
            f"{subject} does not fit: its weights take {human_bytes(plan.footprint.weight_bytes)}, "
            f"{human_bytes(plan.missing_bytes)} more than any storage device of the profile holds; use fewer bits per "
            "weight or a smaller model"
        )
    return str(refusal(plan.footprint, plan.usable_bytes, subject, streams=True))
