"""Readahead of routed experts, for MoE models that are larger than memory and streamed from the mapped file.

Without it a missing page is read when a kernel touches it, a few kilobytes at a time. Here whole experts are prefetched
as soon as the router has selected them: the storage device reads megabytes sequentially while the first experts are
computed. Nothing is copied or pinned; the operating system decides which pages stay in memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

import numpy as np

from sprat.arrays import I32Array
from sprat.locks import ForkSafeLock
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_checks import TensorInfo

__all__ = ["ExpertReadahead"]

_PARTS = ("gate", "up", "down")
_MAX_TOKENS = 16  # more tokens use most experts, which the kernels then read sequentially


class ExpertReadahead:
    """A :data:`~sprat.runtime.models.RoutingObserver` that prefetches the selected experts of each layer.

    Args:
        file: the model; its parts are opened a second time, since ``posix_fadvise`` needs descriptors.
    """

    def __init__(self, file: GGUFFile) -> None:
        self._tensors = file.tensors
        self._descriptors = [os.open(part.path, os.O_RDONLY | os.O_CLOEXEC) for part in file.parts]
        self._lock = ForkSafeLock()
        # Once: the numbers may belong to other files later.
        self._close = weakref.finalize(self, _close_all, self._descriptors)

    def __call__(self, layer: int, experts: I32Array) -> None:
        """Prefetch the selected ``experts (n, n_experts_per_token)`` of ``layer``."""
        if len(experts) > _MAX_TOKENS:
            return
        selected = np.unique(experts).tolist()
        with self._lock:
            if not self._close.alive:
                return
            for part in _PARTS:
                tensor = self._tensors[f"blk.{layer}.ffn_{part}_exps.weight"]
                for expert in selected:
                    self._advise(tensor, expert)

    def close(self) -> None:
        """Close the descriptors; once more does nothing."""
        with self._lock:
            self._close()

    def _advise(self, tensor: TensorInfo, expert: int) -> None:
        nbytes = tensor.nbytes // tensor.shape[0]
        descriptor = self._descriptors[tensor.part]
        os.posix_fadvise(descriptor, tensor.offset + expert * nbytes, nbytes, os.POSIX_FADV_WILLNEED)


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
