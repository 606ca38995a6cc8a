"""llama.cpp's parameters for a placement."""

from __future__ import annotations

import ctypes
from typing import Any

from sprat.devices.plan.placement import Placement
from sprat.runtime.backends.gpu.ggml import device_named, host_buffer_type

__all__ = ["Offload", "experts_pattern"]


class _Override(ctypes.Structure):
    """``llama_model_tensor_buft_override``: tensors whose name matches go into buffers of this type."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p))


class Offload:
    """Sets the parameters of a model, and keeps what they point to until the model is loaded.

    Args:
        placement: what is on the card; ``None`` for nothing, whatever llama.cpp was built for.
        device: llama.cpp's name of it.
    """

    def __init__(self, placement: Placement | None, device: str) -> None:
        self._placement, self._device = placement, device
        self._kept: list[Any] = []

    def set(self, params: Any) -> None:
        """Set devices, layers and tensor overrides in a ``llama_model_params``.

        Raises:
            BackendError: the device is gone.
        """
        placement = self._placement
        devices = [] if placement is None else [device_named(self._device)]
        params.devices = self._address((ctypes.c_void_p * (len(devices) + 1))(*devices, None))
        params.n_gpu_layers = 0 if placement is None else placement.layers + placement.head
        if placement is not None and placement.experts_in_memory:
            override = _Override(experts_pattern(placement.experts_in_memory), host_buffer_type())
            params.tensor_buft_overrides = self._address((_Override * 2)(override))  # zeros end the list

    def _address(self, array: Any) -> Any:
        self._kept.append(array)
        return ctypes.cast(array, ctypes.c_void_p)


def experts_pattern(layers: tuple[int, ...]) -> bytes:
    r"""A regular expression for the names of the routed experts' tensors of these layers.

    Example:
        >>> experts_pattern((1, 26)).decode()
        '^blk\\.(1|26)\\.ffn_(gate|up|down|gate_up)_exps\\.'
    """
    return rf"^blk\.({'|'.join(map(str, layers))})\.ffn_(gate|up|down|gate_up)_exps\.".encode()
