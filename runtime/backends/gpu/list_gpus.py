"""The child process of :mod:`sprat.runtime.backends.gpu.find`: prints the GPUs as JSON.

Its argument is the attention of a model as JSON, or ``null``.
"""

from __future__ import annotations

import os
import sys

import msgspec

from sprat.errors import SpratError
from sprat.runtime.backends.gpu.attention_shape import AttentionShape
from sprat.runtime.backends.gpu.find import GPUDevice
from sprat.runtime.backends.gpu.flash import flash_caches
from sprat.runtime.backends.gpu.ggml import device_values, ggml

_GPU, _INTEGRATED = 1, 2  # GGML_BACKEND_DEVICE_TYPE_GPU, _IGPU


def main(attention: str = "null") -> None:
    """Print a JSON list; llama.cpp's own messages go to standard error."""
    shape = msgspec.json.decode(attention, type=AttentionShape | None)
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        library = ggml()
        devices = [library.ggml_backend_dev_get(index) for index in range(library.ggml_backend_dev_count())]
        gpus = [gpu for device in devices if (gpu := _gpu(device, shape)) is not None]
    except SpratError as error:
        sys.exit(str(error))
    os.write(output, msgspec.json.encode(gpus))


def _gpu(device: int, shape: AttentionShape | None) -> GPUDevice | None:
    name, description, kind, free_bytes, total_bytes = device_values(device)
    if kind not in {_GPU, _INTEGRATED}:
        return None
    return GPUDevice(
        name=name,
        description=description,
        integrated=kind == _INTEGRATED,
        free_bytes=free_bytes,
        total_bytes=total_bytes,
        flash_attention=flash_caches(device, shape) if shape else (),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
