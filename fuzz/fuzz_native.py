"""``make fuzz-native SECONDS=300``: libFuzzer over the kernels (address sanitizer) and the codecs (UBSan, too).

Each target of ``fuzz/native`` gets the same time. The corpus begins with blocks of every format, good and bad, and
grows in ``build/fuzz/corpus``; an input that ends a target is kept in ``build/fuzz/found`` and ends the run with status
1. A table, and one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["run_target", "write_seeds"]

_BUILD = Path(__file__).parents[1] / "build" / "fuzz"
_SOURCES = Path(__file__).parent / "native"
_SEEDS = 200  # per target
_MAX_LENGTH = 4096  # bytes of an input: several rows of the widest format


def write_seeds(folder: Path) -> None:
    """Inputs of random bytes, of one byte repeated, and of NaN: each begins with a format, as the targets read it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(19)
    for number in range(_SEEDS):
        head = bytes([number % 18, *(rng.randrange(256) for _ in range(5))])
        fill = rng.choice((bytes([rng.randrange(256)]), b"\x00\x00\xc0\x7f", b"\x00\x3c"))
        body = rng.choice((rng.randbytes(1500), (fill * 1500)[:1500]))
        (folder / f"seed-{number}").write_bytes(head + body)


def run_target(program: Path, seconds: int) -> dict[str, Any]:
    """Run one target; counts, and the last lines of a finding."""
    name = program.name.removeprefix("fuzz_")
    corpus, found = _BUILD / "corpus" / name, _BUILD / "found"
    write_seeds(corpus)
    found.mkdir(parents=True, exist_ok=True)
    command = [
        program,
        corpus,
        f"-max_total_time={seconds}",
        f"-max_len={_MAX_LENGTH}",
        f"-artifact_prefix={found / name}-",
        "-print_final_stats=1",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-verbosity=1",
    ]
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    coverage = re.findall(r"cov: (\d+)", done.stderr)
    findings = [] if done.returncode == 0 else [line for line in done.stderr.splitlines() if line.strip()][-12:]
    return {
        "target": name,
        "seconds": round(time.monotonic() - began),
        "inputs": int(executed[1]) if executed else 0,
        "edges": int(coverage[-1]) if coverage else 0,
        "corpus": sum(1 for _ in corpus.iterdir()),
        "finding": findings,
    }


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    arguments = parser.parse_args()
    programs = [_BUILD / f"fuzz_{path.stem}" for path in sorted(_SOURCES.glob("*.cpp"))]
    rows = [run_target(program, max(1, arguments.seconds // len(programs))) for program in programs]
    print(f"{'target':<14}{'seconds':>8}{'inputs':>12}{'edges':>8}{'corpus':>8}  finding")
    for row in rows:
        print(
            f"{row['target']:<14}{row['seconds']:>8}{row['inputs']:>12,}{row['edges']:>8}{row['corpus']:>8}  "
            f"{row['finding'][0] if row['finding'] else 'none'}"
        )
    for row in rows:
        print("\n".join(row["finding"]), file=sys.stderr)
    n_findings = sum(bool(row["finding"]) for row in rows)
    print(json.dumps({"fuzz_native_inputs": sum(row["inputs"] for row in rows), "findings": n_findings, "rows": rows}))
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(_main())
