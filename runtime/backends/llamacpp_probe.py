"""Trying llama.cpp on a file in a child process, because an abort or an illegal instruction cannot be caught.

The child is :mod:`sprat.runtime.backends.llamacpp_child`. It is tried with llama.cpp's repacked buffers first (fast),
then without (what MoE models need on processors with AMX). The result is cached per file, llama-cpp-python version and
processor.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from sprat.devices.cpu import this_cpu
from sprat.errors import BackendError
from sprat.files import atomic_write, cache_folder

__all__ = ["ProbeReport", "probe"]

_TIMEOUT_SECONDS = 600  # reading a large file from an SD card takes minutes
_CHILD = "sprat.runtime.backends.llamacpp_child"


class ProbeReport(msgspec.Struct, frozen=True):
    """What survived."""

    use_extra_bufts: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one child ended."""

    return_code: int
    last_words: str

    def text(self) -> str:
        """``SIGILL`` or ``exit code 3``, and the child's last lines."""
        died = self.return_code < 0
        ending = signal.Signals(-self.return_code).name if died else f"exit code {self.return_code}"
        return f"{ending}: {self.last_words}" if self.last_words else ending


def probe(path: Path) -> ProbeReport:
    """Find out how llama.cpp can load ``path`` on this machine without killing the process.

    Raises:
        BackendError: it cannot; the message holds how the child ended, and the remedy.
    """
    remembered = _memory_of(path)
    known = _recall(remembered)
    if known is not None:
        return known
    for use_extra_bufts in (True, False):
        outcome = _try(path, use_extra_bufts=use_extra_bufts)
        if outcome.return_code == 0:
            report = ProbeReport(use_extra_bufts)
            _remember(remembered, report)
            return report
        if outcome.return_code > 0:  # llama.cpp refused the file, and will again
            raise BackendError(outcome.last_words)
    raise BackendError(f"{path}: llama.cpp fails in a child process ({outcome.text()}); {_remedy(outcome)}")


def _try(path: Path, *, use_extra_bufts: bool) -> _Outcome:
    command = [sys.executable, "-m", _CHILD, str(path), str(int(use_extra_bufts))]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return _Outcome(1, f"no answer within {_TIMEOUT_SECONDS} s")
    return _Outcome(child.returncode, _last_words(child.stderr.decode("utf-8", "replace")))


def _last_words(stderr: str) -> str:
    """The failed assertion, which ggml prints before a backtrace; otherwise the last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return next((line for line in lines if "GGML_ASSERT" in line), lines[-1] if lines else "")


def _remedy(outcome: _Outcome) -> str:
    if -outcome.return_code == signal.SIGKILL:
        return "the system killed it, mostly for lack of memory: choose a smaller file or a shorter context"
    if outcome.return_code < 0:
        from sprat.runtime.backends.llamacpp_build import install_command

        return f"rebuild it for this processor: {install_command()} --force-reinstall --no-binary llama-cpp-python"
    return "run it with backend='reference', or export the file again"


def _memory_of(path: Path) -> Path:
    """The file that remembers the probe of ``path``: one per file content (by size and time), library and processor."""
    found, cpu = path.stat(), this_cpu()
    features = sorted(name for name, there in cpu.features.items() if there)
    identity = [str(path.resolve()), found.st_size, found.st_mtime_ns, version("llama-cpp-python"), cpu.model, features]
    digest = hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]
    return cache_folder() / "probes" / f"{digest}.json"


def _recall(remembered: Path) -> ProbeReport | None:
    try:
        return msgspec.json.decode(remembered.read_bytes(), type=ProbeReport)
    except (OSError, msgspec.DecodeError):
        return None  # never probed, or not by us: probe again


def _remember(remembered: Path, report: ProbeReport) -> None:
    with contextlib.suppress(OSError):  # a home that cannot be written: the next start probes again
        remembered.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(remembered, msgspec.json.encode(report))
