"""Run the fuzz targets: ``make fuzz SECONDS=300``, or ``python -m fuzz_run --seconds 60 gguf config``.

Each target runs in a process of its own with a limit on its memory. The inputs are the corpus, then mutations: guided
by coverage where atheris is installed (:mod:`fuzz_guided`), elsewhere, or with ``--unguided``, those of
:mod:`fuzz_mutate`, also of mutations that a reader took to the end. A finding is kept in ``build/fuzz/TARGET/``, and
the command exits with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from fuzz_mutate import mutate
from fuzz_seeds import seeds
from fuzz_targets import MEMORY, TARGETS, remove_files, run

_MAX_BYTES = 1 << 18
_MAX_SECONDS = 20  # of one input
_MAX_MEMORY = 6 << 30
_START_SECONDS = 600  # to start, and for the last input, on a machine that is busy
_KEPT = 300  # inputs that ran to the end, as material for further mutations
_FOUND = Path("build") / "fuzz"


@dataclass(slots=True)
class Counts:
    """Result of one target."""

    target: str
    seconds: float = 0.0
    inputs: int = 0
    to_the_end: int | None = 0  # None: not counted
    findings: list[str] = field(default_factory=list)


class Slow(Exception):  # noqa: N818 - not an error of the reader
    """An input took longer than the limit."""


def main() -> None:
    """Run the named targets, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=300, help="in total, divided among the targets")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--unguided", action="store_true", help="even where atheris is installed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    if options.child:
        _fuzz(names[0], options.seconds, options.seed)
        return
    is_guided = importlib.util.find_spec("atheris") is not None and not options.unguided
    share = options.seconds / len(names)
    counts = [_guided(name, share) if is_guided else _in_child(name, share, options.seed) for name in names]
    print("guided by coverage (atheris)" if is_guided else "not guided by coverage")
    _print(counts)
    sys.exit(any(count.findings for count in counts))


def _in_child(target: str, seconds: float, seed: int | None) -> Counts:
    command = [sys.executable, "-m", "fuzz_run", target, "--child", "--seconds", str(seconds)]
    command += [] if seed is None else ["--seed", str(seed)]
    try:
        child = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=2 * seconds + _START_SECONDS)
    except subprocess.TimeoutExpired:
        return Counts(target, findings=[f"hangs; its last input is {_last(target)}"])
    lines = [line for line in child.stdout.splitlines() if line.startswith(b'{"target"')]
    found = Counts(**json.loads(lines[-1])) if lines else Counts(target)
    if child.returncode:
        found.findings.append(f"the process ended with {child.returncode}; its last input is {_last(target)}")
    return found


def _guided(target: str, seconds: float) -> Counts:
    """Counts of a run by libFuzzer, which has none of the inputs that ran to the end."""
    folder = _FOUND / target
    command = [sys.executable, "-m", "fuzz_guided", target, str(max(1, round(seconds))), str(folder)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sprat-fuzz-", dir=MEMORY) as files:  # libFuzzer leaves without cleaning up
        try:
            child = subprocess.run(
                command,
                env={**os.environ, "TMPDIR": files},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
                timeout=2 * seconds + _START_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Counts(target, findings=["hangs"])
    text = child.stderr.decode("utf-8", "replace")
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
    found = Counts(target, round(time.monotonic() - began, 1), int(executed[1]) if executed else 0, None)
    if child.returncode:
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("#", "stat::"))]
        found.findings.append(f"status {child.returncode}: {' | '.join(lines[-8:])[:600]}; the input is in {folder}")
    return found


def _fuzz(target: str, seconds: float, seed: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _slow)
    corpus = list(seeds(target).values())
    counts, rng = Counts(target), random.Random(seed)
    begin = time.monotonic()
    try:
        for data in list(corpus):
            _try(counts, data)
        while time.monotonic() - begin < seconds:
            _try_mutation(counts, corpus, rng)
    finally:
        counts.seconds = round(time.monotonic() - begin, 1)
        print(json.dumps(asdict(counts)), flush=True)
        remove_files()


def _try_mutation(counts: Counts, corpus: list[bytes], rng: random.Random) -> None:
    data = mutate(rng.choice(corpus), rng, corpus, _MAX_BYTES)
    if _try(counts, data) and len(corpus) < _KEPT:
        corpus.append(data)


def _try(counts: Counts, data: bytes) -> bool:
    """Whether ``data`` ran to its end; a finding is written to a file."""
    counts.inputs += 1
    _last(counts.target).parent.mkdir(parents=True, exist_ok=True)
    _last(counts.target).write_bytes(data)
    signal.alarm(_MAX_SECONDS)
    try:
        done = run(counts.target, data)
    except BaseException as error:  # pyo3's PanicException is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        _keep(counts, data, error)
        return False
    finally:
        signal.alarm(0)
    counts.to_the_end = (counts.to_the_end or 0) + done
    return done


def _keep(counts: Counts, data: bytes, error: BaseException) -> None:
    """Write a finding, one per place in the code."""
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    own = [place for place in places if not place.startswith("fuzz_")]
    finding = f"{type(error).__name__} at {own[-1] if own else places[-1]}"
    if finding in counts.findings:
        return
    counts.findings.append(finding)
    path = _FOUND / counts.target / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="replace")
    print(f"{counts.target}: {finding}: {path}", file=sys.stderr, flush=True)


def _last(target: str) -> Path:
    return _FOUND / target / "last-input"


def _slow(_signal: int, _frame: FrameType | None) -> None:
    raise Slow(f"over {_MAX_SECONDS} s")


def _print(counts: list[Counts]) -> None:
    print(f"{'target':<18}{'seconds':>8}{'inputs':>10}{'to the end':>12}  findings")
    for one in counts:
        listed = "; ".join(one.findings) or "none"
        ended = "-" if one.to_the_end is None else one.to_the_end
        print(f"{one.target:<18}{one.seconds:>8.0f}{one.inputs:>10}{ended:>12}  {listed}")
    total = sum(one.inputs for one in counts)
    print(f"{'sum':<18}{sum(one.seconds for one in counts):>8.0f}{total:>10}")


if __name__ == "__main__":
    main()
