"""Start-up time of ``import sprat``, ``sprat --help`` and a whole ``sprat run`` in a new interpreter.

    python benchmarks/startup.py [--runs 10] [--json]

Compared with ``python -c pass``. The cases alternate, so that the ratios hold on a busy machine, and run once before
they are timed. The interpreter must keep bytecode: where PYTHONDONTWRITEBYTECODE is set, it is removed, since without
bytecode every module is compiled again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

CASES = {
    "python": ["-c", "pass"],
    "import": ["-c", "import sprat"],
    "help": ["-m", "sprat", "--help"],
    "run": ["-m", "sprat", "run", "demo", "What is 17 + 25?"],
}
OWN = ("import", "help", "run")
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(arguments: list[str]) -> float:
    """Wall time of one new interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=_ENVIRONMENT, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Run the cases in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for arguments in CASES.values():
        seconds(arguments)
    for _ in range(options.runs):
        for name, arguments in CASES.items():
            times[name].append(seconds(arguments))
    median = {name: statistics.median(found) for name, found in times.items()}
    if not options.json:
        for name, found in median.items():
            print(f"{name:<8} {1000 * found:7.1f} ms   {found / median['python']:5.2f} x python -c pass")
    own = {f"{name}_ms": round(1000 * (median[name] - median["python"]), 1) for name in OWN}
    ratios = {f"{name}_ratio": round(median[name] / median["python"], 2) for name in OWN}
    print(json.dumps({"runs": options.runs, "python_ms": round(1000 * median["python"], 1), **own, **ratios}))


if __name__ == "__main__":
    main()
