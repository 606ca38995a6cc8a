"""Appends the ratios of a comparison with llama.cpp to ``history.jsonl``, with commit and machine, and draws them all.

Only ratios and shares: a time depends on the other tenants of a shared machine as much as on sprat.

    python benchmarks/vs_llamacpp.py --shape demo --json > results.json
    python benchmarks/history.py results.json          # writes benchmarks/history.jsonl and build/history.svg

``make bench`` does both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sprat.devices.cpu import this_cpu

_ROOT = Path(__file__).parents[1]
HISTORY = Path(__file__).parent / "history.jsonl"
_RATIOS = ("_ratio", "_share", "_share_of_empty")


def entry(results: dict[str, Any], commit: str) -> dict[str, Any]:
    """The part of ``results``, the JSON of ``vs_llamacpp.py``, that is kept in the history."""
    cpu = this_cpu()
    kept = {name: round(value, 3) for name, value in results.items() if name.endswith(_RATIOS)}
    if not kept:
        raise SystemExit("no ratio in these results: pass the output of vs_llamacpp.py --json")
    date = datetime.now(UTC).isoformat(timespec="minutes")
    return {"commit": commit, "date": date, "machine": f"{cpu.model}, {cpu.n_cores} cores", "ratios": kept}


def read(path: Path = HISTORY) -> list[dict[str, Any]]:
    """All entries, oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def append(new: dict[str, Any], path: Path = HISTORY) -> None:
    """Add an entry."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(new) + "\n")


def draw(entries: list[dict[str, Any]], path: Path) -> None:
    """A chart for each ratio, a line for each machine, over commits."""
    import matplotlib as mpl  # only where something is drawn

    mpl.use("svg")
    from matplotlib import pyplot as plt

    names = sorted({name for each in entries for name in each["ratios"]})
    figure, axes = plt.subplots(len(names), 1, figsize=(9, 2 * len(names)), squeeze=False, sharex=True)
    for name, axis in zip(names, axes[:, 0], strict=True):
        for machine in sorted({each["machine"] for each in entries}):
            points = [(i, each["ratios"][name]) for i, each in enumerate(entries) if _has(each, machine, name)]
            axis.plot([i for i, _ in points], [value for _, value in points], marker="o", label=machine)
        axis.set_title(name, loc="left", fontsize=9)
        axis.axhline(1, color="grey", linewidth=0.5)
    axes[0, 0].legend(fontsize=7)
    axes[-1, 0].set_xticks(range(len(entries)), [each["commit"][:8] for each in entries], rotation=90, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def _has(each: dict[str, Any], machine: str, name: str) -> bool:
    return each["machine"] == machine and name in each["ratios"]


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Append and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="output of vs_llamacpp.py --json")
    append(entry(json.loads(parser.parse_args().results.read_text(encoding="utf-8")), _commit()))
    entries, chart = read(), _ROOT / "build" / "history.svg"
    draw(entries, chart)
    print(f"{HISTORY.name}: {len(entries)} entries; {chart}")


if __name__ == "__main__":
    main()
