"""The student that travels with sprat: a small trained mixture of experts in DeepSeek-V2-Lite's architecture.

``demo`` names it wherever a source is asked for. Its weights lie beside this file as package data; what it can do, and
how well, stands in its ``README.md``; `sprat.demo.tasks` makes the problems that it is judged by.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["path"]


def path() -> Path:
    """The folder of the packaged checkpoint, in Hugging Face's layout."""
    return Path(__file__).parent
