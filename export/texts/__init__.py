"""Texts that are installed with sprat."""

from __future__ import annotations

from importlib import resources

__all__ = ["evaluation_text"]


def evaluation_text() -> str:
    """The default text of ``sprat verify``: prose, code, tables, reasoning and several languages."""
    return (resources.files("sprat.export.texts") / "evaluation.txt").read_text(encoding="utf-8")
