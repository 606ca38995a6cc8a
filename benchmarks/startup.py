"""Start-up time of ``import sprat`` and ``sprat --help`` in a new interpreter, compared with ``python -c pass``.

    python benchmarks/startup.py [--runs 10] [--json]

The three cases alternate, so that the ratios hold on a busy machine. The last line is JSON.
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
    """Wall time of one new interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Run the cases in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.runs):
        for name, arguments in CASES.items():
            times[name].append(seconds(arguments))
    median = {name: statistics.median(found) for name, found in times.items()}
    if not options.json:
        for name, found in median.items():
            print(f"{name:<8} {1000 * found:7.1f} ms   {found / median['python']:5.2f} x python -c pass")
    own = {f"{name}_ms": round(1000 * (median[name] - median["python"]), 1) for name in ("import", "help")}
    ratios = {f"{name}_ratio": round(median[name] / median["python"], 2) for name in ("import", "help")}
    print(json.dumps({"runs": options.runs, "python_ms": round(1000 * median["python"], 1), **own, **ratios}))


if __name__ == "__main__":
    main()
