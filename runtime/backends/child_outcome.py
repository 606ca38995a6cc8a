"""The end of a child process, in words: of a probe of llama.cpp, and of an isolated backend."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Self

__all__ = ["ChildOutcome"]


@dataclass(frozen=True, slots=True)
class ChildOutcome:
    """Exit status and last message of a child."""

    return_code: int
    message: str

    @classmethod
    def of(cls, return_code: int, stderr: bytes) -> Self:
        """The outcome of a child that wrote ``stderr``.

        The message is the failed assertion, which ggml prints before a backtrace; otherwise the last line.
        """
        lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        return cls(return_code, next((line for line in lines if "GGML_ASSERT" in line), lines[-1] if lines else ""))

    def text(self) -> str:
        """``SIGILL`` or ``exit code 3``, and the message."""
        killed = self.return_code < 0
        ending = signal.Signals(-self.return_code).name if killed else f"exit code {self.return_code}"
        return f"{ending}: {self.message}" if self.message else ending
