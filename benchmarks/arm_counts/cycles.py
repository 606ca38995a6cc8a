"""Cycles of basic blocks on a processor, by llvm-mca and the scheduling model that LLVM has of it."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections import Counter
from pathlib import Path

from arm_counts.emulator import Block, instructions

__all__ = ["predicted_cycles"]

_MCA = "llvm-mca-19"
_COVERED = 0.98  # of the instructions; the others take as many cycles each
_INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\t(.*)")
_TARGET = re.compile(r"[0-9a-f]+ <[^>]*>(?: *//.*)?")  # of a branch, as objdump writes it


def predicted_cycles(blocks: Counter[Block], program: Path, model: str) -> float:
    """Cycles that these blocks of ``program`` take, each as if it were repeated.

    Args:
        blocks: how often each runs.
        program: the executable that they are part of.
        model: a processor of LLVM, for example ``neoverse-n1``.
    """
    code = _disassembled(program)
    by_cost = sorted(blocks.items(), key=lambda item: -item[0].n_instructions * item[1])
    wanted, total = _COVERED * instructions(blocks), 0
    chosen: list[tuple[Block, int]] = []
    for block, runs in by_cost:
        if total >= wanted:
            break
        chosen.append((block, runs))
        total += block.n_instructions * runs
    cycles = _mca([_lines(code, block) for block, _ in chosen], model)
    spent = sum(runs * each for (_, runs), each in zip(chosen, cycles, strict=True))
    return spent * instructions(blocks) / total


@functools.cache
def _disassembled(program: Path) -> dict[int, str]:
    command = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", str(program)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = (_INSTRUCTION.fullmatch(line) for line in text.splitlines())
    return {int(line[1], 16): _TARGET.sub("#0", line[2]) for line in found if line}


def _lines(code: dict[int, str], block: Block) -> list[str]:
    return [code[block.address + 4 * i] for i in range(block.n_instructions)]


def _mca(blocks: list[list[str]], model: str) -> list[float]:
    """Cycles of each block, the mean of a hundred repetitions."""
    regions = ("\n".join([f"# LLVM-MCA-BEGIN {i}", *lines, f"# LLVM-MCA-END {i}"]) for i, lines in enumerate(blocks))
    command = [_MCA, "-mtriple=aarch64", f"-mcpu={model}", "-mattr=+dotprod,+i8mm,+fp16", "-iterations=100", "-json"]
    done = subprocess.run(command, input="\n".join(regions) + "\n", capture_output=True, text=True, check=True)
    summaries = [region["SummaryView"] for region in json.loads(done.stdout)["CodeRegions"]]
    return [summary["TotalCycles"] / summary["Iterations"] for summary in summaries]
