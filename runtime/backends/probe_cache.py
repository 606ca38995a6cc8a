"""Cached results of child processes that probed a model: a probe takes as long as loading, or compiles shaders."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sprat.devices.cpu import this_cpu
from sprat.files import DocumentError, atomic_write, cache_folder, parse_json, read_input

__all__ = ["probe_file", "recall", "remember"]

T = TypeVar("T", bound=msgspec.Struct)

# Another driver, device or library needs another probe.
_DRIVERS = (
    "VK_ICD_FILENAMES",
    "VK_DRIVER_FILES",
    "GGML_VK_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "LLAMA_CPP_LIB_PATH",
    "LD_LIBRARY_PATH",
)


def probe_file(paths: Iterable[Path], *identity: Any) -> Path:
    """The file for what was found about ``paths``: one per files (by path, size and time), CPU, driver, ``identity``.

    Args:
        paths: the model's files.
        identity: what else the result depends on: a library's version, a placement; anything that JSON can hold.
    """
    cpu, found = this_cpu(), [(path, path.stat()) for path in paths]
    files = [(os.path.realpath(path), status.st_size, status.st_mtime_ns) for path, status in found]
    features = sorted(name for name, present in cpu.features.items() if present)
    drivers = [os.environ.get(name) for name in _DRIVERS]
    digest = hashlib.sha256(msgspec.json.encode([files, cpu.model, features, drivers, identity])).hexdigest()[:32]
    return cache_folder() / "probes" / f"{digest}.json"


def recall(cached: Path, kind: type[T]) -> T | None:
    """The cached result; ``None`` if there is none, or the file is damaged."""
    try:
        found: T = parse_json(read_input(cached), kind)
    except (OSError, DocumentError):
        return None
    return found


def remember(cached: Path, report: msgspec.Struct) -> None:
    """Write ``report`` for the next start; a folder that is not writable means that the next start probes again."""
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(cached, msgspec.json.encode(report))
