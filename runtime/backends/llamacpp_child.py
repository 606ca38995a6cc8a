"""The child process of :mod:`sprat.runtime.backends.llamacpp_probe`.

``python -m sprat.runtime.backends.llamacpp_child FILE 1`` loads the file with repacked buffers (``0``: without),
decodes three tokens and exits with 0. If llama.cpp rejects the file, it exits with 1 and the reason on standard error.
With the files of the model as further arguments, it is in a sandbox that can read nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sprat.errors import SpratError

_PROBE_TOKENS = (1, 2, 3)  # ids in every vocabulary


def main(path: str, use_extra_bufts: str, *readable: str) -> None:
    """Load the file, decode a prompt of two tokens, and one more token."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort is expected: write no core file
    if readable:
        from sprat.runtime.sandbox.enter import enter_sandbox

        enter_sandbox(map(Path, readable))  # before NumPy starts threads

    from sprat.runtime.backends.llamacpp import LlamaCppBackend

    try:
        backend = LlamaCppBackend(Path(path), n_threads=1, use_extra_bufts=use_extra_bufts == "1")
        stream = backend.new_stream(capacity=32)
        stream.forward(_PROBE_TOKENS[:2])
        stream.forward(_PROBE_TOKENS[2:])
    except SpratError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
