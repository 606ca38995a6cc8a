"""The packaged student as a GGUF, for the commands that take no checkpoint; kept in the user's cache folder."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from sprat.app.export import export
from sprat.app.model_reference import DEMO
from sprat.errors import ExportError
from sprat.files import cache_folder
from sprat.runtime.files.model_file import find_model

__all__ = ["demo_gguf"]


def demo_gguf(quant: str) -> Path:
    """The GGUF of the packaged student in ``quant``, exported at first use.

    Raises:
        ExportError: the cache folder cannot be written.
    """
    out = cache_folder() / DEMO / f"{version('sprat')}-{quant}"
    try:
        bundle = export(DEMO, out, quant=quant).path
    except ExportError:  # another student, or a damaged bundle: make it again
        bundle = export(DEMO, out, quant=quant, force=True).path
    return find_model(bundle)
