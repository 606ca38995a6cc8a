"""The loss curve of a run."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from batches import TASKS

mpl.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["draw_losses"]

_WINDOW = 25


def draw_losses(table: Path, picture: Path) -> None:
    """Draw ``losses.csv`` (step, one loss per task, balance, seconds), each a running mean over at most 25 steps."""
    rows = np.loadtxt(table, delimiter=",", ndmin=2)
    rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for column, name in enumerate(TASKS, start=1):
        losses = rows[:, column]
        known = np.isfinite(losses)
        window = min(_WINDOW, np.count_nonzero(known))
        if window:
            smooth = np.convolve(losses[known], np.ones(window) / window, mode="valid")
            axes.plot(rows[known, 0][window - 1 :], smooth, label=name)
    minutes = np.median(rows[:, -1]) * len(rows) / 60
    axes.set(
        yscale="log",
        xlabel="step",
        ylabel="loss per answer token (nats)",
        title=f"{len(rows)} steps in {minutes:.0f} minutes",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(picture, dpi=120)
    plt.close(figure)
