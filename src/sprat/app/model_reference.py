"""What a name on the command line stands for: the packaged student, a checkpoint, a bundle or a file."""

from __future__ import annotations

from pathlib import Path

from sprat.errors import InputError
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import MANIFEST_NAME

__all__ = ["find_source", "open_engine"]

_DEMO = "demo"


def find_source(name: str) -> Path:
    """The checkpoint called ``name``: ``demo`` is the packaged student, anything else a path."""
    if name != _DEMO:
        return Path(name)
    from sprat import demo

    return demo.path()


def open_engine(
    name: str,
    *,
    device: str | None = None,
    memory: int | str | None = None,
    backend: str = "auto",
    context: int | None = None,
    force: bool = False,
) -> Engine:
    """``Engine.load`` for a bundle or a GGUF; a checkpoint folder or ``demo`` runs unquantized, in NumPy.

    Raises:
        InputError: ``name`` is none of them, or a checkpoint was asked to run on another backend.
    """
    path = find_source(name)
    if not path.is_dir() or (path / MANIFEST_NAME).exists():
        return Engine.load(path, device=device, memory=memory, backend=backend, context=context, force=force)
    if backend not in {"auto", "reference"} or device is not None:
        raise InputError(
            f"{path}: a checkpoint runs as it is, in NumPy; `sprat export` it for a device or another backend"
        )
    from sprat.export.verify.source_model import load_source

    return load_source(path, memory=memory, context=context)
