"""Cycles of basic blocks on a processor, by llvm-mca and the scheduling model that LLVM has of it."""

from __future__ import annotations

import bisect
import functools
import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from arm_counts.emulator import Block, instructions

__all__ = ["predicted_cycles"]

_MCA, _OBJDUMP = "llvm-mca-19", "llvm-objdump-19"
_COVERED = 0.98  # of the instructions; the others take as many cycles each
_INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(.*)")
_TARGET = re.compile(r"(?:0x)?[0-9a-f]+ <[^>]*>(?: *//.*)?")  # of a branch, as objdump writes it


class _Tools(NamedTuple):
    disassemble: tuple[str, ...]
    target: str  # an operand for branches
    features: str


_TOOLS = {
    "aarch64": _Tools(("aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn"), "#0", "+dotprod,+i8mm,+fp16"),
    "x86_64": _Tools((_OBJDUMP, "-d", "--no-show-raw-insn"), "0", "+avx2"),
}


def predicted_cycles(blocks: Counter[Block], program: Path, model: str, architecture: str = "aarch64") -> float:
    """Cycles that these blocks of ``program`` take, each as if it were repeated.

    Args:
        blocks: how often each runs.
        program: the executable that they are part of.
        model: a processor of LLVM, for example ``neoverse-n1``.
        architecture: of both.
    """
    code = _disassembled(program, architecture)
    blocks = _without_repeated(blocks, code)
    by_cost = sorted(blocks.items(), key=lambda item: -item[0].n_instructions * item[1])
    wanted, total = _COVERED * instructions(blocks), 0
    chosen: list[tuple[Block, int]] = []
    for block, runs in by_cost:
        if total >= wanted:
            break
        chosen.append((block, runs))
        total += block.n_instructions * runs
    cycles = _mca([_lines(code, block) for block, _ in chosen], model, architecture)
    spent = sum(runs * each for (_, runs), each in zip(chosen, cycles, strict=True))
    return spent * instructions(blocks) / total


class _Code(NamedTuple):
    addresses: list[int]
    lines: list[str]


@functools.cache
def _disassembled(program: Path, architecture: str) -> _Code:
    tools = _TOOLS[architecture]
    text = subprocess.run([*tools.disassemble, str(program)], capture_output=True, text=True, check=True).stdout
    found = [line for line in map(_INSTRUCTION.fullmatch, text.splitlines()) if line]
    lines = [_TARGET.sub(tools.target, line[2]) for line in found]
    return _Code([int(line[1], 16) for line in found], lines)


def _lines(code: _Code, block: Block) -> list[str]:
    first = bisect.bisect_left(code.addresses, block.address)
    return code.lines[first : first + block.n_instructions]


def _without_repeated(blocks: Counter[Block], code: _Code) -> Counter[Block]:
    """The same without x86's repeated string instructions, each step of which the emulator takes for a block.

    llvm-mca has a hundred cycles for each, where a processor writes 32 bytes and more per cycle.
    """
    is_repeated = {block: any(line.startswith("rep") for line in _lines(code, block)[:1]) for block in blocks}
    return Counter({block: runs for block, runs in blocks.items() if not is_repeated[block]})


def _mca(blocks: list[list[str]], model: str, architecture: str) -> list[float]:
    """Cycles of each block, the mean of a hundred repetitions."""
    regions = ("\n".join([f"# LLVM-MCA-BEGIN {i}", *lines, f"# LLVM-MCA-END {i}"]) for i, lines in enumerate(blocks))
    command = [_MCA, f"-mtriple={architecture}", f"-mcpu={model}", f"-mattr={_TOOLS[architecture].features}"]
    command += ["-iterations=100", "-json"]
    done = subprocess.run(command, input="\n".join(regions) + "\n", capture_output=True, text=True, check=True)
    summaries = [region["SummaryView"] for region in json.loads(done.stdout)["CodeRegions"]]
    return [summary["TotalCycles"] / summary["Iterations"] for summary in summaries]
