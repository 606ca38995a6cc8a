"""The child process of :mod:`sprat.runtime.backends.gpu.find`: prints the GPUs as JSON."""

from __future__ import annotations

import os
import sys

import msgspec

from sprat.errors import SpratError
from sprat.runtime.backends.gpu.find import GPUDevice
from sprat.runtime.backends.gpu.ggml import device_values, ggml

_GPU, _INTEGRATED = 1, 2  # GGML_BACKEND_DEVICE_TYPE_GPU, _IGPU


def main() -> None:
    """Print a JSON list; llama.cpp's own messages go to standard error."""
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        library = ggml()
        found = [device_values(library.ggml_backend_dev_get(i)) for i in range(library.ggml_backend_dev_count())]
    except SpratError as error:
        sys.exit(str(error))
    gpus = [
        GPUDevice(name=name, description=text, integrated=kind == _INTEGRATED, free_bytes=free, total_bytes=total)
        for name, text, kind, free, total in found
        if kind in {_GPU, _INTEGRATED}
    ]
    os.write(output, msgspec.json.encode(gpus))


if __name__ == "__main__":
    main()
