"""The phases of training: the main phase, and a short one that has fewer prose texts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PHASES", "Phase", "phase_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Some steps with one ratio of tasks and one learning rate schedule."""

    steps: int
    rate: float
    """Initial learning rate, as a share of the peak; it decays to zero."""
    decay: float
    """Share of the steps, at the end, in which the rate decays linearly."""
    shares: tuple[float, float, float]
    """Shares of problems: arithmetic, home, prose. Shares of tokens differ: prose is the longest, home the shortest."""


PHASES = (
    Phase(steps=1250, rate=1.0, decay=0.55, shares=(0.37, 0.39, 0.24)),
    # Every prose text has been seen several times by now; exact answers need more training.
    Phase(steps=550, rate=0.4, decay=1.0, shares=(0.48, 0.37, 0.15)),
)


def phase_at(step: int) -> tuple[Phase, int]:
    """The phase of `step`, and the index of the step within it.

    >>> phase_at(1250)[1]
    0
    """
    for phase in PHASES:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise IndexError(f"step {step} is beyond the last phase")
