"""Names of models on the command line and in the API: ``demo`` is the packaged student, all others are paths."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["find_source"]

_DEMO = "demo"


def find_source(name: str | os.PathLike[str]) -> Path:
    """The path of a model: ``"demo"`` is the packaged student's checkpoint; ``Path("demo")`` is a path like any other.

    Args:
        name: ``"demo"``, or the path of a checkpoint, a bundle or a model file. The path need not exist.
    """
    if name != _DEMO:
        return Path(name)
    from sprat import demo

    return demo.path()
