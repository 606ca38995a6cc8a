"""The method of arm.py against a clock: on x86, ratios to llama.cpp can be predicted and measured.

Both programs are built for AVX2, counted under qemu-user and predicted with llvm-mca like those for ARM. Then they run
in turn on this machine, and the least CPU time of many repetitions counts, since other programs only add to it.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arm_counts.cycles import predicted_cycles
from arm_counts.emulator import NotSupportedError, per_repeat
from arm_counts.works import Work

__all__ = ["Clock", "summary"]

_ARCHITECTURE, _EMULATED, _ISA = "x86_64", "max", "avx2"
_PATHS = ("plain", "repacked")  # of llama.cpp
_ROUNDS, _SECONDS = 15, 0.15  # of each program in turn


@dataclass(frozen=True, slots=True)
class Clock:
    """Predicts and measures work on this machine.

    Attributes:
        plugin: what counts.
        sprat: ``count_sprat`` for x86.
        llamacpp: ``count_llamacpp`` for x86.
        model: what LLVM calls this machine's processor, for example ``znver4``.
    """

    plugin: Path
    sprat: Path
    llamacpp: Path
    model: str

    def ratios(self, work: Work) -> Iterator[tuple[str, dict[str, float]]]:
        """llama.cpp's cost over sprat's, predicted and measured, of each path that llama.cpp has."""
        ours = self._predicted(self.sprat, _ISA, work)
        for path in _PATHS if work.arguments[0] in {"product", "experts"} else _PATHS[:1]:
            try:
                theirs = self._predicted(self.llamacpp, path, work)
            except NotSupportedError:
                continue
            predicted, measured = theirs / ours, self._measured(path, work)
            error = abs(predicted / measured - 1)
            yield f"{work.name}, {path}", {"predicted": predicted, "measured": measured, "error": error}

    def _predicted(self, program: Path, variant: str, work: Work) -> float:
        blocks = per_repeat(self.plugin, _EMULATED, program, variant, work.arguments, _ARCHITECTURE)
        return predicted_cycles(blocks, program, self.model, _ARCHITECTURE)

    def _measured(self, path: str, work: Work) -> float:
        ours, theirs = [self.sprat, _ISA], [self.llamacpp, path]
        repeats = [max(3, round(_SECONDS / _least_seconds(program, 3, work))) for program in (ours, theirs)]
        times = [
            [_least_seconds(program, n, work) for program, n in zip((ours, theirs), repeats, strict=True)]
            for _ in range(_ROUNDS)
        ]
        return min(second for _, second in times) / min(first for first, _ in times)


def _least_seconds(program: list[Any], repeats: int, work: Work) -> float:
    command = [str(program[0]), str(program[1]), str(repeats), *work.arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def summary(ratios: dict[str, dict[str, float]]) -> dict[str, float]:
    """Median and worst error of what :meth:`Clock.ratios` gave."""
    errors = [row["error"] for row in ratios.values()]
    return {"median": statistics.median(errors), "worst": max(errors)}
