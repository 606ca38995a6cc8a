"""Names of models on the command line and in the API: ``demo``, and those that an engine takes."""

from __future__ import annotations

import os
from pathlib import Path

from sprat.runtime.files.model_reference import locate_model

__all__ = ["DEMO", "find_source"]

DEMO = "demo"


def find_source(name: str | os.PathLike[str]) -> Path:
    """The path of a model, as :func:`~sprat.runtime.files.model_reference.locate_model` finds it.

    ``"demo"`` is the packaged student's checkpoint; ``Path("demo")`` is a path like any other.

    Raises:
        InputError: ``name`` is no text and no path, or it is empty; a repository is not in the cache, its download is
            incomplete, or a folder has several GGUF models.
    """
    if name == DEMO:
        from sprat import demo

        return demo.path()
    return locate_model(name)
