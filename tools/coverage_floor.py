"""Check test coverage against its floors: ``python tools/coverage_floor.py build/coverage.json`` (``coverage json``).

Percentages count lines and branches together, as ``coverage report`` does. Exit status 1 below a floor.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TOTAL_FLOOR = 93.0
MODULE_FLOOR = 80.0


def modules_below(report: dict[str, Any], floor: float) -> list[tuple[float, str]]:
    """The modules covered by less than ``floor`` percent, the worst first."""
    covered = [(float(entry["summary"]["percent_covered"]), path) for path, entry in report["files"].items()]
    return sorted(module for module in covered if module[0] < floor)


def complaints(report: dict[str, Any]) -> list[str]:
    """One line for each floor that is missed."""
    total = float(report["totals"]["percent_covered"])
    lines = [
        f"{path}: {percent:.1f} %, floor {MODULE_FLOOR} %" for percent, path in modules_below(report, MODULE_FLOOR)
    ]
    if not report["files"]:
        lines.append("no module was measured")
    if total < TOTAL_FLOOR:
        lines.append(f"all modules together: {total:.2f} %, floor {TOTAL_FLOOR} %")
    return lines


def main() -> int:
    """Print the total, and every floor that is missed."""
    report = json.loads(Path(sys.argv[1]).read_bytes())
    print(
        f"coverage of {len(report['files'])} modules, lines and branches: {report['totals']['percent_covered']:.2f} %"
    )
    lines = complaints(report)
    for line in lines:
        print(f"too low: {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
