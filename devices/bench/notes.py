"""The notes of many results in few sentences."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from sprat.devices.bench.results import Measurement

__all__ = ["gather_notes"]

_SHARE = re.compile(r"\d+(?=%)")


def gather_notes(records: Iterable[Measurement]) -> dict[str, list[str]]:
    """Every note, and the tests that have it; notes that differ in one percentage alone are one, with its range."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for record in records:
        for note in record.notes:
            found[_SHARE.sub("#", note, count=1)].append((note, record.work.test))
    return {_merged([note for note, _ in group]): [test for _, test in group] for group in found.values()}


def _merged(notes: list[str]) -> str:
    shares = [int(number[0]) for note in notes if (number := _SHARE.search(note))]
    if not shares or min(shares) == max(shares):
        return notes[0]
    return _SHARE.sub(f"{min(shares)} to {max(shares)}", notes[0], count=1)
