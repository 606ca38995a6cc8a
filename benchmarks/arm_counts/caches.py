"""Misses of a small cache, simulated by cachegrind, against those that no order of reading avoids.

The set ``avx2`` of x86 has the panels and tiles of the boards' sets (8 rows x 1024 columns, 4 tokens), and cachegrind
knows its instructions. The last-level cache takes the size of what all cores of a board share, or of one core's
second level.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sprat.quant.formats import get_format

__all__ = ["CACHES", "Product", "misses_ratio"]

_LINE = 64
_FIRST_LEVEL = "32768,4,64"
# Name -> cachegrind's size, associativity and line: a Zero 2 W's only one or a Pi 5's core's own, and the Pi 5's last.
CACHES = {"512 KB": "524288,16,64", "2 MB": "2097152,16,64"}
_DATA_MISSES = re.compile(r"LLd misses:\s+([\d,]+)")


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product: weights in ``format_name`` (rows, cols), times ``n`` tokens."""

    format_name: str
    rows: int
    cols: int
    n: int

    @property
    def compulsory_lines(self) -> float:
        """Cache lines of what it reads and writes: weights, activations in float32 and int8, and the result."""
        packed = get_format(self.format_name).row_bytes(self.cols) * self.rows
        activations = self.n * self.cols * (4 + 1.5)
        return (packed + activations + 4 * self.n * self.rows) / _LINE


def misses_ratio(program: Path, cache: str, product: Product) -> float:
    """Last-level misses of a repetition over the compulsory ones.

    Args:
        program: ``count_sprat`` for x86.
        cache: a value of :data:`CACHES`.
        product: much larger than the cache, so that a repetition finds nothing of the one before.
    """
    once, twice = (_data_misses(program, cache, product, repeats) for repeats in (1, 2))
    return (twice - once) / product.compulsory_lines


def _data_misses(program: Path, cache: str, product: Product, repeats: int) -> int:
    words = ["product", product.format_name, product.rows, product.cols, product.n]
    with tempfile.NamedTemporaryFile(suffix=".cachegrind") as out:
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", f"--cachegrind-out-file={out.name}"]
        command += [f"--D1={_FIRST_LEVEL}", f"--I1={_FIRST_LEVEL}", f"--LL={cache}"]
        command += [str(program), "avx2", str(repeats), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = _DATA_MISSES.search(done.stderr)
    if not found:
        raise ValueError(f"cachegrind printed no line 'LLd misses'; it printed: {done.stderr[-500:]}")
    return int(found[1].replace(",", ""))
