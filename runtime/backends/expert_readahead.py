"""Reading experts ahead: for a mixture larger than memory, whose weights come and go with the mapped file.

A page that is missing is otherwise read when a kernel touches it, a few kilobytes at a time. As soon as the router has
chosen, whole experts are asked for here, so that the medium reads megabytes in a row while the first of them are
multiplied. Nothing is copied and nothing held: what stays in memory is the system's choice.
"""

from __future__ import annotations

import os

import numpy as np

from sprat.arrays import I32Array
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_checks import TensorInfo

__all__ = ["ExpertReadahead"]

_PARTS = ("gate", "up", "down")
_MOST_TOKENS = 16  # more of them choose most experts, which kernels then read one after the other


class ExpertReadahead:
    """A :data:`~sprat.runtime.models.RoutingObserver` that asks the system for the experts of each layer.

    Args:
        file: the model; its parts are opened once more, since advice needs descriptors.
    """

    def __init__(self, file: GGUFFile) -> None:
        self._tensors = file.tensors
        self._descriptors = [os.open(part.path, os.O_RDONLY | os.O_CLOEXEC) for part in file.parts]

    def __call__(self, layer: int, experts: I32Array) -> None:
        """Ask for the chosen experts, ``(n, n_experts_per_token)``, of ``layer``."""
        if len(experts) > _MOST_TOKENS:
            return
        chosen = np.unique(experts).tolist()
        for part in _PARTS:
            tensor = self._tensors[f"blk.{layer}.ffn_{part}_exps.weight"]
            for expert in chosen:
                self._advise(tensor, expert)

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _advise(self, tensor: TensorInfo, expert: int) -> None:
        nbytes = tensor.nbytes // tensor.shape[0]
        descriptor = self._descriptors[tensor.part]
        os.posix_fadvise(descriptor, tensor.offset + expert * nbytes, nbytes, os.POSIX_FADV_WILLNEED)
