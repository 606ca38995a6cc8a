"""``make soak SECONDS=600``: requests at random, for a long time; nothing may grow.

Each request goes to a driver: an engine of each backend, in this process or isolated. A driver for something else that
answers requests is a class with the methods of :class:`Driver` and a line in :data:`DRIVERS`. Requests are
cancelled, time out, are wrong, need too much memory, and are left half read at random; clocks jump meanwhile (the wall
clock, as Python sees it). After the first tenth of the time, which fills caches, resident memory, descriptors and
threads must stay: a table, and one JSON object last. The exit status is 1 if something grew or another error than
sprat's came.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from soak_server import ServerDriver

from sprat.errors import DoesNotFitError, SpratError
from sprat.runtime.engine import Engine

__all__ = ["DRIVERS", "Driver", "soak"]

_MAX_GROWN_BYTES = 24 << 20  # of resident memory, between the first tenth and the end
_MAX_MORE = 4  # descriptors or threads
_PROMPTS = ("The quick brown fox", "17 + 25 =", "Hello", "x" * 300, "")
_MESSAGES = [{"role": "user", "content": "What is 17 + 25?"}]
_BAD: tuple[dict[str, Any], ...] = (
    {"prompt": ""},
    {"prompt": "\udcff"},
    {"prompt": [10**9]},
    {"prompt": b"bytes"},
    {"prompt": "x" * 10_000_000},
    {"prompt": "x", "max_tokens": -1},
    {"prompt": "x", "temperature": float("nan")},
    {"prompt": "x", "timeout": -1.0},
    {"prompt": "x", "stop": [5]},
)


class Driver(Protocol):
    """Answers requests."""

    def generate(self, prompt: Any, options: dict[str, Any], cancel_after: float | None) -> None:
        """Answer ``prompt``, and cancel the answer after some seconds."""

    def chat(self, options: dict[str, Any]) -> None:
        """Answer one message."""

    def abandon(self) -> None:
        """Begin an answer and forget it."""

    def hold(self, rng: random.Random) -> None:
        """Open conversations until memory is refused, and use one."""

    def processes(self) -> list[int]:
        """The processes whose memory counts."""

    def close(self) -> None:
        """Stop."""


class EngineDriver:
    """An engine.

    Args:
        path: the model.
        options: of :meth:`Engine.load`.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        self._engine = _with_little_memory(path, context=256, **options)

    def generate(self, prompt: Any, options: dict[str, Any], cancel_after: float | None) -> None:
        """Answer, and cancel from another thread."""
        answer = self._engine.generate(prompt, **options)
        if cancel_after is None:
            answer.text()
            return
        timer = threading.Timer(cancel_after, answer.cancel)
        timer.start()
        try:
            answer.text()
        finally:
            timer.cancel()
            timer.join()

    def chat(self, options: dict[str, Any]) -> None:
        """Request a chat completion without a session."""
        self._engine.chat(_MESSAGES, **options)

    def abandon(self) -> None:
        """Stop reading an answer after one token."""
        next(self._engine.generate("Hello", max_tokens=50))

    def hold(self, rng: random.Random) -> None:
        """Up to twenty sessions."""
        with ExitStack() as sessions:
            first = sessions.enter_context(self._engine.session(context=64))
            first.generate("Hello", max_tokens=4).text()
            for _ in range(rng.randint(1, 20)):
                sessions.enter_context(self._engine.session())

    def processes(self) -> list[int]:
        """This process, and that of an isolated backend."""
        process = getattr(self._engine.backend, "process_id", None)
        return [os.getpid(), *([process] if process else [])]

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def _with_little_memory(path: Path, **options: Any) -> Engine:
    """The engine with the least memory that it takes, to a megabyte: a few more sessions are refused."""
    for n_bytes in itertools.count(8 << 20, 1 << 20):
        try:
            return Engine.load(path, memory=n_bytes, **options)
        except DoesNotFitError:
            continue
    raise AssertionError("the loop has no end")


DRIVERS: dict[str, Callable[[Path], Driver]] = {
    "native": lambda path: EngineDriver(path, backend="native"),
    "reference": lambda path: EngineDriver(path, backend="reference"),
    "onnx": lambda path: EngineDriver(path, backend="onnx"),
    "isolated": lambda path: EngineDriver(path, backend="native", isolate=True),
    "server": ServerDriver,
}


@dataclass
class Usage:
    """Resources of all processes of a driver that must not grow."""

    resident_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, processes: list[int]) -> Usage:
        """Now."""
        gc.collect()
        usage = cls(0, 0, 0)
        for process in processes:
            folder = Path("/proc", str(process))
            fields = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
            usage.resident_bytes += int(fields["VmRSS"].split()[0]) << 10
            usage.threads += int(fields["Threads"])
            usage.descriptors += sum(1 for _ in (folder / "fd").iterdir())
        return usage

    def grown(self, later: Usage) -> list[str]:
        """Resources that grew until ``later`` by more than their tolerance."""
        problems = []
        if later.resident_bytes - self.resident_bytes > _MAX_GROWN_BYTES:
            problems.append(f"resident memory from {self.resident_bytes:,} to {later.resident_bytes:,} bytes")
        for name in ("descriptors", "threads"):
            before, after = getattr(self, name), getattr(later, name)
            if after - before > _MAX_MORE:
                problems.append(f"{name} from {before} to {after}")
        return problems


@dataclass
class Soaked:
    """Result of one driver."""

    driver: str
    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    first: Usage | None = None
    last: Usage | None = None

    def row(self) -> dict[str, Any]:
        """The usage of this driver as a JSON object."""
        assert self.first is not None, "it was not soaked"
        assert self.last is not None, "it was not soaked"
        return {
            "driver": self.driver,
            "requests": self.requests,
            "outcomes": dict(self.outcomes),
            "rss_first_mib": self.first.resident_bytes >> 20,
            "rss_last_mib": self.last.resident_bytes >> 20,
            "descriptors": [self.first.descriptors, self.last.descriptors],
            "threads": [self.first.threads, self.last.threads],
            "problems": self.problems,
        }


def _request(driver: Driver, rng: random.Random) -> str:
    """Make one request; its kind."""
    kind = rng.choices(("answer", "cancel", "timeout", "bad", "chat", "abandon", "hold"), (4, 3, 3, 3, 2, 1, 1))[0]
    options: dict[str, Any] = {"max_tokens": rng.randint(1, 24), "seed": rng.getrandbits(31)}
    prompt = rng.choice(_PROMPTS)
    with _clock_that_jumps(rng):
        match kind:
            case "answer":
                driver.generate(prompt, options, None)
            case "cancel":
                driver.generate(prompt, {"max_tokens": 200}, rng.expovariate(200))
            case "timeout":
                driver.generate(prompt, {**options, "timeout": rng.expovariate(200)}, None)
            case "bad":
                bad = dict(rng.choice(_BAD))
                driver.generate(bad.pop("prompt"), {**options, **bad}, None)
            case "chat":
                driver.chat(options)
            case "abandon":
                driver.abandon()
            case "hold":
                driver.hold(rng)
    return kind


@contextmanager
def _clock_that_jumps(rng: random.Random) -> Iterator[None]:
    """Sometimes, a wall clock that is off by up to ten years; ``time.monotonic`` cannot jump."""
    if rng.random() < 0.9:
        yield
        return
    with mock.patch.object(time, "time", return_value=time.time() + rng.uniform(-3e8, 3e8)):
        yield


def _soak_one(name: str, driver: Driver, seconds: float, seed: int) -> Soaked:
    """Requests to a driver for a time."""
    soaked, rng, began = Soaked(name), random.Random(seed), time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds or soaked.requests < 2:
        if soaked.first is None and elapsed > seconds / 10:
            soaked.first = Usage.of(driver.processes())
        soaked.requests += 1
        try:
            soaked.outcomes[_request(driver, rng)] += 1
        except SpratError as error:
            soaked.outcomes[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 - a finding, which is reported with its seed
            soaked.problems.append(f"request {soaked.requests} of seed {seed}: {type(error).__name__}: {error}")
            break
    soaked.last = Usage.of(driver.processes())
    soaked.first = soaked.first or soaked.last
    soaked.problems += soaked.first.grown(soaked.last)
    return soaked


def soak(path: Path, names: list[str], seconds: float, seed: int = 0) -> list[Soaked]:
    """Soak each driver for its share of ``seconds``; it is closed, and opened again for the next."""
    results = []
    for name in names:
        driver = DRIVERS[name](path)
        try:
            results.append(_soak_one(name, driver, seconds / len(names), seed))
        finally:
            driver.close()
    return results


def _print(results: list[Soaked]) -> None:
    print(f"{'driver':<12}{'requests':>9}{'errors':>8}{'RSS MiB':>12}{'files':>9}{'threads':>9}  problems")
    for row in (result.row() for result in results):
        errors = sum(count for kind, count in row["outcomes"].items() if kind.endswith("Error"))
        memory = f"{row['rss_first_mib']}..{row['rss_last_mib']}"
        files, threads = ("..".join(map(str, row[key])) for key in ("descriptors", "threads"))
        problems = "; ".join(row["problems"]) or "none"
        print(f"{row['driver']:<12}{row['requests']:>9}{errors:>8}{memory:>12}{files:>9}{threads:>9}  {problems}")


def _main() -> int:
    from fuzz_seeds import bundle

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--driver", action="append", choices=list(DRIVERS))
    arguments = parser.parse_args()
    results = soak(bundle(), arguments.driver or list(DRIVERS), arguments.seconds, arguments.seed)
    _print(results)
    rows = [result.row() for result in results]
    record = {
        "soak_requests": sum(row["requests"] for row in rows),
        "soak_problems": sum(len(row["problems"]) for row in rows),
        "seconds": arguments.seconds,
        "seed": arguments.seed,
        "rows": rows,
    }
    print(json.dumps(record))
    return 1 if record["soak_problems"] else 0


if __name__ == "__main__":
    sys.exit(_main())
