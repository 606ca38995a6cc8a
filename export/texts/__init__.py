"""Texts that are installed with sprat, under its licence (Apache-2.0): all of them were written for it."""

from __future__ import annotations

from importlib import resources

__all__ = ["calibration_text", "evaluation_text"]


def evaluation_text() -> str:
    """The default text of ``sprat verify``: prose, code, tables, reasoning and several languages."""
    return _read("evaluation.txt")


def calibration_text() -> str:
    """The default text of a calibrated export: reasoning, chats, code, documents, eleven languages.

    No sentence of it is in :func:`evaluation_text`. :mod:`sprat.export.calibration` reads its marks.
    """
    return _read("calibration.txt")


def _read(name: str) -> str:
    return (resources.files("sprat.export.texts") / name).read_text(encoding="utf-8")
