"""Load a file with llama.cpp in a child process first, since an abort or an illegal instruction cannot be caught.

The child is :mod:`sprat.runtime.backends.llamacpp_child`. It runs with llama.cpp's repacked buffers (fast), and if that
crashes, without them (needed for MoE models on CPUs with AMX). The result is remembered per file, llama-cpp-python
version, CPU and driver.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sprat.errors import BackendError
from sprat.runtime.backends.child_outcome import ChildOutcome
from sprat.runtime.backends.gpu.use import GPUUse
from sprat.runtime.backends.probe_cache import probe_file, recall, remember

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
    from importlib.metadata import version  # imports e-mail and CSV readers

    cached = probe_file([path], version("llama-cpp-python"), *on_gpu)
    if (report := recall(cached, ProbeReport)) is not None:
        return report
    for use_extra_bufts in (True, False):
        outcome = _try(path, on_gpu, readable, use_extra_bufts=use_extra_bufts)
        if outcome.return_code == 0:
            report = ProbeReport(use_extra_bufts)
            remember(cached, report)
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
