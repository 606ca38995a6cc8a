"""An interrupted measurement: the state after a layer, kept beside the measurements, and continued by the same call."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sprat.arrays import F32Array
from sprat.export.quality.measuring.measurements import Measurements
from sprat.export.quality.measuring.probes import Probes

__all__ = ["Unfinished"]

_SAVE_EVERY_S = 60.0  # hidden states of a large model's probes take hundreds of MB
_FIELDS = ("errors", "expert_tokens")


class Unfinished:
    """The file of a measurement that runs.

    Args:
        path: the file; its name has the digest of everything that the measurement depends on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = time.monotonic()

    def save_if_due(
        self, layer: int, found: Measurements, x: F32Array, probes: Sequence[Probes], formats: Sequence[dict[str, str]]
    ) -> None:
        """Write the state before ``layer``, if the last write is a minute ago."""
        if time.monotonic() - self._saved < _SAVE_EVERY_S:
            return
        arrays = {"x": x, **{f"mean_squares/{name}": rows for name, rows in found.mean_squares.items()}}
        arrays |= {f"probe/{i}/{key}": state for i, each in enumerate(probes) for key, state in each.states.items()}
        scalars = {
            "layer": layer,
            "shares": [each.shares for each in probes],
            "formats": list(formats),
            **{name: getattr(found, name) for name in _FIELDS},
        }
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, scalars=np.array(json.dumps(scalars)), **arrays)
            partial.replace(self._path)
        finally:
            partial.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def load(
        self, found: Measurements, x: F32Array, probes: Sequence[Probes], formats: Sequence[dict[str, str]]
    ) -> int:
        """Fill everything with the state that was kept, and return the layer to continue with; 0 if there is none."""
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                scalars, arrays = json.loads(str(stored["scalars"])), dict(stored)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # none, or a damaged one: measure from the start
            return 0
        x[...] = arrays["x"]
        for name in _FIELDS:
            getattr(found, name).update(scalars[name])
        for name, array in arrays.items():
            kind, _, rest = name.partition("/")
            if kind == "mean_squares":
                found.mean_squares[rest] = array
            elif kind == "probe":
                number, _, key = rest.partition("/")
                probes[int(number)].states[key] = array
        for each, shares, own, kept in zip(probes, scalars["shares"], formats, scalars["formats"], strict=True):
            each.shares.update(shares)
            own.update(kept)
        return int(scalars["layer"])

    def remove(self) -> None:
        """Delete the file: the measurement is complete."""
        self._path.unlink(missing_ok=True)
