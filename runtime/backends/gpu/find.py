"""The GPUs that llama.cpp sees, found in a child process: a broken driver can end the process that loads it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys

import msgspec

from sprat.devices.plan.context_settings import CacheType
from sprat.errors import BackendError
from sprat.runtime.backends.gpu.attention_shape import AttentionShape

__all__ = ["GPUDevice", "find_gpus"]

_CHILD = "sprat.runtime.backends.gpu.list_gpus"
_TIMEOUT_SECONDS = 60


class GPUDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU.

    Attributes:
        name: llama.cpp's, ``Vulkan0``.
        description: the driver's.
        integrated: whether it shares the CPU's memory.
        free_bytes: of its memory.
        total_bytes: of its memory.
        flash_attention: storages of the KV cache with which it has flash attention for a model.
    """

    name: str
    description: str
    integrated: bool
    free_bytes: int
    total_bytes: int
    flash_attention: tuple[CacheType, ...] = ()


def find_gpus(shape: AttentionShape | None = None) -> list[GPUDevice]:
    """The GPUs that the installed llama.cpp can use now; none with a build for the CPU.

    Args:
        shape: of the attention that flash attention is wanted for.

    Raises:
        BackendError: llama-cpp-python is not installed, or the child process died: mostly of a driver.
    """
    if importlib.util.find_spec("llama_cpp") is None:
        raise BackendError(
            "llama-cpp-python is not installed, and only it computes on a GPU; sprat doctor has the line"
        )
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", _CHILD, msgspec.json.encode(shape).decode()],
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"looking for GPUs took more than {_TIMEOUT_SECONDS} s; check the driver, or use gpu='off'"
        ) from error
    if child.returncode == 0:
        return msgspec.json.decode(child.stdout, type=list[GPUDevice])
    code = child.returncode
    ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
    raise BackendError(
        f"looking for GPUs ended a child process ({ending}{': ' + lines[-1][:200] if lines else ''}); update the GPU's "
        "driver, or use gpu='off'"
    )
