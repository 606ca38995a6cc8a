"""Speed of sprat's kernels on processors that nobody measured it on: cycles from counted instructions.

``benchmarks/arm.py --save`` cross-compiles the kernels, counts under an emulator how often each basic block runs, takes
the cycles of each from LLVM's model of the processor, and writes ``devices/plan/counted.toml``.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Annotated

import msgspec

from sprat.devices.parts import Cores, Sourced
from sprat.errors import DeviceError

__all__ = ["Counted", "CountedCore", "load_counted", "parse_counted"]

Positive = Annotated[float, msgspec.Meta(gt=0)]


class CountedCore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cycles of one core for a product of an int4 weight (Q4_0) with a token's activation.

    Attributes:
        one_token_of: with one token, by block format.
        many_tokens: with 512, in Q4_0.
        error: relative error of predictions from these cycles.
    """

    one_token_of: dict[str, Positive]
    many_tokens: Positive
    error: Sourced

    def __post_init__(self) -> None:
        if "Q4_0" not in self.one_token_of:
            raise ValueError("one_token_of has no Q4_0, which the other formats are compared with")

    @property
    def one_token(self) -> float:
        """Cycles with one token, in Q4_0."""
        return self.one_token_of["Q4_0"]


class Counted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        source: compiler, emulator and models.
        cores: by kind, as profiles name it.
    """

    source: str
    cores: dict[str, CountedCore]

    def has(self, cores: tuple[Cores, ...]) -> bool:
        """Whether all these kinds of cores were counted."""
        return all(some.kind in self.cores for some in cores)

    def products_per_second(self, cores: tuple[Cores, ...]) -> tuple[float, float]:
        """Products per second of all these cores together: with one token, and with many."""
        cycles = [(1e9 * some.count * some.clock_ghz.value, self.cores[some.kind]) for some in cores]
        return sum(hz / core.one_token for hz, core in cycles), sum(hz / core.many_tokens for hz, core in cycles)

    def relative_cycles(self, cores: tuple[Cores, ...]) -> dict[str, float]:
        """Block format -> cycles of a product with one token over those in Q4_0, by the slowest kind counted."""
        relative: dict[str, float] = {}
        for some in cores:
            cycles = self.cores[some.kind].one_token_of if some.kind in self.cores else {}
            for format, of_format in cycles.items():
                relative[format] = max(relative.get(format, 0.0), of_format / cycles["Q4_0"])
        return relative

    def error(self, cores: tuple[Cores, ...]) -> float:
        """The largest error of these kinds."""
        return max(self.cores[some.kind].error.value for some in cores)


@functools.cache
def load_counted() -> Counted:
    """The counts that sprat is installed with."""
    return parse_counted((resources.files("sprat.devices.plan") / "counted.toml").read_bytes())


def parse_counted(toml: bytes) -> Counted:
    """Counts from a file's bytes.

    Raises:
        DeviceError: a key is missing, unknown or out of range.
    """
    try:
        return msgspec.toml.decode(toml, type=Counted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DeviceError(f"counted.toml: {error}; write it again with benchmarks/arm.py --save") from error
