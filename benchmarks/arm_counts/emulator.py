"""Runs a program under qemu-user and counts how often each of its basic blocks ran."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Block", "NotSupportedError", "build_plugin", "instructions", "per_repeat"]

_NO_SUCH_PATH = 3  # exit status of count_llamacpp where llama.cpp has no repacked form


class Block(NamedTuple):
    """Instructions that run one after another, the last of which may branch."""

    address: int
    n_instructions: int


class NotSupportedError(Exception):
    """A program has no kernel of this kind."""


def build_plugin(folder: Path) -> Path:
    """Compile the plugin that counts (``blocks.c``) into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    plugin = folder / "blocks.so"
    source = Path(__file__).parent / "blocks.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", plugin, source], check=True)
    return plugin


def per_repeat(plugin: Path, cpu: str, program: Path, variant: str, work: Sequence[str]) -> Counter[Block]:
    """How often each block runs for one repetition of ``work``: what two repetitions add to one.

    Args:
        plugin: what :func:`build_plugin` returned.
        cpu: a processor of the emulator, for example ``cortex-a72``.
        program: ``count_sprat`` or ``count_llamacpp``.
        variant: its first argument.
        work: its arguments from the third on.

    Raises:
        NotSupportedError: llama.cpp has no repacked form of this product.
        subprocess.CalledProcessError: the program failed.
    """
    once, twice = (_run(plugin, cpu, [str(program), variant, repeats, *work]) for repeats in ("1", "2"))
    twice.subtract(once)
    return +twice


def instructions(blocks: Counter[Block]) -> int:
    """All instructions of these blocks."""
    return sum(block.n_instructions * runs for block, runs in blocks.items())


def _run(plugin: Path, cpu: str, command: list[str]) -> Counter[Block]:
    with tempfile.NamedTemporaryFile(mode="r", suffix=".blocks", encoding="ascii") as counts:
        emulator = ["qemu-aarch64", "-cpu", cpu, "-plugin", f"{plugin},to={counts.name}"]
        done = subprocess.run([*emulator, *command], capture_output=True, text=True, check=False)
        if done.returncode == _NO_SUCH_PATH:
            raise NotSupportedError(" ".join(command))
        done.check_returncode()
        blocks: Counter[Block] = Counter()
        for line in counts:
            address, n_instructions, runs = line.split()
            blocks[Block(int(address, 16), int(n_instructions))] += int(runs)
    return blocks
