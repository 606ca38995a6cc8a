"""The three answers to whether a model runs on a device."""

from __future__ import annotations

import enum

__all__ = ["Verdict"]


class Verdict(enum.StrEnum):
    """Whether a model runs on a device."""

    FITS = "fits"
    STREAMED = "fits with experts streamed"
    TOO_LARGE = "does not fit"
