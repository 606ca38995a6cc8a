"""Instructions per product against those of an earlier commit: a gate that noise cannot trip."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["TABLE", "compiler", "complaints", "save"]

TABLE = Path(__file__).parent / "instructions.json"
_REMEDY = "find the change that costs them, or state why and write the table again with --save"
_TOLERANCE, _OF_ANOTHER_COMPILER = 0.02, 0.25

Counts = dict[str, dict[str, float]]  # processor, work


def compiler() -> str:
    """Major version of the cross compiler, on which counts depend."""
    command = ["aarch64-linux-gnu-g++", "-dumpversion"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().partition(".")[0]


def save(counts: Counts, version: str, path: Path = TABLE) -> None:
    """Write the table."""
    rounded = {name: {work: round(value, 4) for work, value in row.items()} for name, row in counts.items()}
    path.write_text(
        json.dumps({"gcc": version, "instructions_per_product": rounded}, indent=2) + "\n", encoding="utf-8"
    )


def complaints(counts: Counts, version: str, table: dict[str, Any]) -> list[str]:
    """Regressions, a line for each; with another compiler than the table's, only large ones.

    Args:
        counts: instructions per product, as found now.
        version: of the compiler, see :func:`compiler`.
        table: what :func:`save` wrote.
    """
    tolerance = _TOLERANCE if version == table["gcc"] else _OF_ANOTHER_COMPILER
    found = []
    for processor, row in table["instructions_per_product"].items():
        for work, before in row.items():
            now = counts.get(processor, {}).get(work)
            if now is None:
                found.append(
                    f"{processor}, {work}: was not counted; {before:.4f} instructions per product in the table"
                )
            elif now > before * (1 + tolerance):
                change = f"{before:.4f} to {now:.4f} instructions per product (GCC {table['gcc']} in {TABLE.name})"
                found.append(f"{processor}, {work}: {change}; {_REMEDY}")
    return found
