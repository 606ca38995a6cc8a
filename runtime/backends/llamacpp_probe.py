"""Load a file with llama.cpp in a child process first, since an abort or an illegal instruction cannot be caught.

The child is :mod:`sprat.runtime.backends.llamacpp_child`. It runs with llama.cpp's repacked buffers (fast), and if that
crashes, without them (needed for MoE models on CPUs with AMX). The result is cached per file, llama-cpp-python version
and CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from sprat.devices.cpu import this_cpu
from sprat.errors import BackendError
from sprat.files import DocumentError, atomic_write, cache_folder, parse_json, read_input
from sprat.runtime.backends.child_outcome import ChildOutcome
from sprat.runtime.backends.gpu.use import GPUUse

__all__ = ["ProbeReport", "probe"]

_TIMEOUT_SECONDS = 600  # reading a large file from an SD card takes minutes
_SHORT_CONTEXT = 32  # tokens
_CHILD = "sprat.runtime.backends.llamacpp_child"


class ProbeReport(msgspec.Struct, frozen=True):
    """The settings that worked."""

    use_extra_bufts: bool


def probe(
    path: Path, gpu: GPUUse | None = None, context: int = _SHORT_CONTEXT, *, readable: Sequence[Path] = ()
) -> ProbeReport:
    """Find the settings with which llama.cpp can load ``path`` on this machine, without risking this process.

    Args:
        path: a GGUF file.
        gpu: what goes on which GPU.
        context: tokens of the KV cache that is allocated with a GPU, whose memory it must fit.
        readable: the files of the model, for a child in a sandbox that can read nothing else; empty for no sandbox.

    Raises:
        BackendError: none works; the message has the exit status of the child and a remedy.
    """
    on_gpu = [msgspec.json.encode(gpu).decode(), str(_SHORT_CONTEXT if gpu is None else context)]
    cached = _cache_file(path, on_gpu)
    report = _read_cached(cached)
    if report is not None:
        return report
    for use_extra_bufts in (True, False):
        outcome = _try(path, on_gpu, readable, use_extra_bufts=use_extra_bufts)
        if outcome.return_code == 0:
            report = ProbeReport(use_extra_bufts)
            _write_cached(cached, report)
            return report
        if outcome.return_code > 0:  # llama.cpp rejected the file
            raise BackendError(outcome.message)
    raise BackendError(f"{path}: llama.cpp crashes in a child process ({outcome.text()}); {_remedy(outcome, gpu)}")


def _try(path: Path, on_gpu: Sequence[str], readable: Sequence[Path], *, use_extra_bufts: bool) -> ChildOutcome:
    files = [os.path.realpath(file) for file in readable]
    command = [sys.executable, "-P", "-m", _CHILD, str(path), str(int(use_extra_bufts)), *on_gpu, *files]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return ChildOutcome(1, f"llama.cpp did not finish within {_TIMEOUT_SECONDS} s")
    return ChildOutcome.of(child.returncode, child.stderr)


def _remedy(outcome: ChildOutcome, gpu: GPUUse | None) -> str:
    if gpu is not None:
        return f"on {gpu.text()}: update the driver, give it less of the GPU's memory (gpu='1GB'), or use gpu='off'"
    if -outcome.return_code == signal.SIGKILL:
        return "the system killed it, mostly for lack of memory: use a smaller file or a shorter context"
    if outcome.return_code < 0:
        from sprat.runtime.backends.llamacpp_build import install_command

        return f"rebuild it for this CPU: {install_command()} --force-reinstall --no-binary llama-cpp-python"
    return "use backend='reference', or export the file again"


def _cache_file(path: Path, on_gpu: list[str]) -> Path:
    """The file that caches the result for ``path``: one per file (by path, size and time), library, CPU, placement."""
    found, cpu = path.stat(), this_cpu()
    features = sorted(name for name, present in cpu.features.items() if present)
    identity = [
        os.path.realpath(path),
        found.st_size,
        found.st_mtime_ns,
        version("llama-cpp-python"),
        cpu.model,
        features,
        *on_gpu,
    ]
    digest = hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]
    return cache_folder() / "probes" / f"{digest}.json"


def _read_cached(cached: Path) -> ProbeReport | None:
    try:
        report: ProbeReport = parse_json(read_input(cached), ProbeReport)
    except (OSError, DocumentError):
        return None  # not cached, or damaged: probe again
    return report


def _write_cached(cached: Path, report: ProbeReport) -> None:
    with contextlib.suppress(OSError):  # the folder is not writable: the next start probes again
        cached.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(cached, msgspec.json.encode(report))
