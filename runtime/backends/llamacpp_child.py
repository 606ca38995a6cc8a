"""The child process of :mod:`sprat.runtime.backends.llamacpp_probe`.

``python -m sprat.runtime.backends.llamacpp_child FILE 1`` loads the file with repacked buffers (``0``: without),
decodes three tokens and exits with 0. If llama.cpp rejects the file, it exits with 1 and the reason on standard error.
A third and fourth argument are a placement on a GPU as JSON, and the context. With the files of the model as further
arguments, it is in a sandbox that can read nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from sprat.devices.plan.context_settings import ContextSettings
from sprat.errors import SpratError
from sprat.runtime.backends.gpu.use import GPUUse

_PROBE_TOKENS = (1, 2, 3)  # ids in every vocabulary


def main(path: str, use_extra_bufts: str, gpu: str = "null", context: str = "32", *readable: str) -> None:
    """Load the file, decode a prompt of two tokens, and one more token."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort is expected: write no core file
    if readable:
        from sprat.runtime.sandbox.enter import enter_sandbox

        enter_sandbox(map(Path, readable))  # before NumPy starts threads

    from sprat.runtime.backends.llamacpp import LlamaCppBackend

    use = msgspec.json.decode(gpu, type=GPUUse | None)
    try:
        settings = use.settings if use else ContextSettings()
        extra = use_extra_bufts == "1"
        backend = LlamaCppBackend(Path(path), n_threads=1, use_extra_bufts=extra, gpu=use, settings=settings)
        stream = backend.new_stream(capacity=int(context))
        stream.forward(_PROBE_TOKENS[:2])
        stream.forward(_PROBE_TOKENS[2:])
    except SpratError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
