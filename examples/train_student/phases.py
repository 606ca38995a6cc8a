"""What is practised when: the main phase, and a short one in which exact answers get most of the attention."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PHASES", "Phase", "phase_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Some steps with one mixture of problems and one course of the learning rate."""

    steps: int
    rate: float
    """Learning rate at its beginning, as a share of the highest; it ends at zero."""
    decay: float
    """Share of the steps, the last ones, in which the rate falls."""
    shares: tuple[float, float, float]
    """Arithmetic, home and prose, of all problems. Prose is the longest and home the shortest, so tokens differ."""


PHASES = (
    Phase(steps=1250, rate=1.0, decay=0.55, shares=(0.37, 0.39, 0.24)),
    # Prose has been read several times by now; exact answers need more practice.
    Phase(steps=550, rate=0.4, decay=1.0, shares=(0.48, 0.37, 0.15)),
)


def phase_at(step: int) -> tuple[Phase, int]:
    """The phase of `step`, and the number of the step within it.

    >>> phase_at(1250)[1]
    0
    """
    for phase in PHASES:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise IndexError(f"step {step} lies beyond the last phase")
