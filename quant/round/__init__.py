"""Calibrated rounding: codes and scales of block formats chosen for the error of a product, not of the weights."""

from __future__ import annotations

from sprat.quant.round.descent import descend
from sprat.quant.round.feedback import round_with_feedback
from sprat.quant.round.grid import Grid, grid_of
from sprat.quant.round.moments import InputMoments
from sprat.quant.round.rounding import Effort, round_matrix
from sprat.quant.round.search import search

__all__ = [
    "Effort",
    "Grid",
    "InputMoments",
    "descend",
    "grid_of",
    "round_matrix",
    "round_with_feedback",
    "search",
]
