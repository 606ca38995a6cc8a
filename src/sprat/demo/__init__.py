"""The packaged student: a small trained MoE model with DeepSeek-V2-Lite's architecture.

Wherever a model is expected, ``demo`` means this one. Its checkpoint is package data in this folder. ``README.md``
describes what it can do and how it scores; `sprat.demo.tasks` generates the problems that it is scored on.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["path"]


def path() -> Path:
    """The folder of the packaged checkpoint, in Hugging Face's layout."""
    return Path(__file__).parent
