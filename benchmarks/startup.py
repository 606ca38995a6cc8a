"""How long ``import sprat`` and ``sprat --help`` take in a fresh interpreter, beside an empty one.

    python benchmarks/startup.py [--runs 10] [--json]

An empty interpreter runs in turn with the other two, so the ratios hold on a busy machine; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

CASES = {
    "python": ["-c", "pass"],
    "import": ["-c", "import sprat"],
    "help": ["-m", "sprat", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Alternate the cases and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.runs):
        for name, arguments in CASES.items():
            times[name].append(seconds(arguments))
    median = {name: statistics.median(found) for name, found in times.items()}
    if not options.json:
        for name, found in median.items():
            print(f"{name:<8} {1000 * found:7.1f} ms   {found / median['python']:5.2f} x an empty interpreter")
    own = {f"{name}_ms": round(1000 * (median[name] - median["python"]), 1) for name in ("import", "help")}
    ratios = {f"{name}_ratio": round(median[name] / median["python"], 2) for name in ("import", "help")}
    print(json.dumps({"runs": options.runs, "python_ms": round(1000 * median["python"], 1), **own, **ratios}))


if __name__ == "__main__":
    main()
