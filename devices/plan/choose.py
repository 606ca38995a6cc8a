"""The best quantization of a model that fits a device."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.plan import DEFAULT_PROMPT, Plan
from sprat.devices.plan.text import refusal
from sprat.devices.profile import DeviceProfile
from sprat.errors import DoesNotFitError

__all__ = ["best_plan", "choose_quant"]


def best_plan(
    footprints: Sequence[Footprint],
    profile: DeviceProfile,
    *,
    usable_bytes: int | None = None,
    prompt_tokens: int = DEFAULT_PROMPT,
) -> Plan:
    """The first of ``footprints``, best quality first, that fits ``profile`` whole.

    When none does, the smallest: it streams the fewest experts, or lacks the fewest bytes.

    Args:
        footprints: of one model, at least one.
        profile: the device.
        usable_bytes: memory that the model may take; by default what the device's system leaves.
        prompt_tokens: of the prompt that the predicted first token waits for.
    """
    usable_bytes = profile.usable_bytes if usable_bytes is None else usable_bytes
    plans = [Plan(profile, footprint, usable_bytes, prompt_tokens) for footprint in footprints]
    return next((plan for plan in plans if plan.fits), max(plans, key=lambda plan: plan.spare_bytes))


def choose_quant(
    footprints: Sequence[Footprint],
    profile: DeviceProfile,
    *,
    usable_bytes: int | None = None,
    force: bool = False,
) -> Plan:
    """:func:`best_plan`, refused when nothing fits.

    Args:
        footprints: of one model, at least one.
        profile: the device.
        usable_bytes: as for :func:`best_plan`.
        force: take the smallest when none fits, instead of raising.

    Raises:
        DoesNotFitError: none fits; the message says what is missing, and what a smaller context would change.
    """
    plan = best_plan(footprints, profile, usable_bytes=usable_bytes)
    if plan.runs or force:
        return plan
    raise DoesNotFitError(refusal(plan))
