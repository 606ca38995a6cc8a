"""Measurements as a file: kept, so that another size of the same model costs no second measurement."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sprat.arrays import I32Array
from sprat.export.quality.measuring.measurements import Measurements
from sprat.files import cache_folder, refuse_special
from sprat.quant.formats import BlockFormat

__all__ = ["load_measurements", "measurements_digest", "measurements_path", "save_measurements"]

_VERSION = 3  # of what is measured, and how
_MEAN_SQUARES = "mean_squares/"


def measurements_digest(
    source_hash: str, sequences: Sequence[I32Array], formats: Iterable[BlockFormat], settings: str
) -> str:
    """SHA-256 of everything that measurements depend on."""
    digest = hashlib.sha256(f"{_VERSION} {source_hash} {settings} {[format.name for format in formats]}".encode())
    for sequence in sequences:
        digest.update(f"{len(sequence)} ".encode() + sequence.astype("<i4").tobytes())
    return digest.hexdigest()


def measurements_path(digest: str) -> Path:
    """Path of the measurements of this digest, in the user's cache folder."""
    return cache_folder() / "calibration" / f"{digest[:32]}.npz"


def save_measurements(path: Path, found: Measurements) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert found.head_moments is not None, "measure() sets them"
    arrays = {_MEAN_SQUARES + name: rows for name, rows in found.mean_squares.items()}
    arrays["head_moments"] = found.head_moments
    scalars = {
        "n_tokens": found.n_tokens,
        "kld": found.kld,
        "errors": found.errors,
        "expert_tokens": found.expert_tokens,
    }
    refuse_special(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, scalars=np.array(json.dumps(scalars)), **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_measurements(path: Path) -> Measurements | None:
    """Read the file; ``None`` if there is none, or it is damaged, which costs a new measurement and nothing else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            scalars = json.loads(str(arrays["scalars"]))
            names = [name for name in arrays.files if name.startswith(_MEAN_SQUARES)]
            return Measurements(
                n_tokens=scalars["n_tokens"],
                kld=scalars["kld"],
                errors=scalars["errors"],
                expert_tokens=scalars["expert_tokens"],
                mean_squares={name.removeprefix(_MEAN_SQUARES): arrays[name] for name in names},
                head_moments=arrays["head_moments"],
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
