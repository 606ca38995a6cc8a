"""The child process of :mod:`sprat.runtime.backends.providers.placement`.

``python -m sprat.runtime.backends.providers.child MODEL SETTINGS`` loads a graph with onnxruntime's verbose log on
standard error, which lists the provider of every node, runs some tokens with the provider and on the CPU, and prints a
:class:`~sprat.runtime.backends.providers.computed.Computed` as JSON.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np

from sprat.arrays import F32Array
from sprat.errors import BackendError
from sprat.runtime.backends.library_guard import LibraryGuard
from sprat.runtime.backends.onnx.backend import ONNXStream
from sprat.runtime.backends.onnx.device_cache import DeviceMemory
from sprat.runtime.backends.onnx.session import LOG_VERBOSE, open_session
from sprat.runtime.backends.providers.computed import Computed
from sprat.runtime.backends.providers.library import onnxruntime
from sprat.runtime.backends.providers.names import full_name
from sprat.runtime.backends.providers.settings import ProviderSettings
from sprat.runtime.files.onnx.file import ONNXFile

__all__ = ["main"]

_PROMPT_TOKENS, _CHUNK = 80, 48  # a second run has a past, and neither is a multiple of a kernel's tile
_DECODED_TOKENS = 12


def main(path: str, settings: str) -> None:
    """Compute, and print the result."""
    ort = onnxruntime()
    provider = msgspec.json.decode(settings, type=ProviderSettings)
    found = Computed(version=ort.__version__, available=tuple(ort.get_available_providers()))
    if full_name(provider.name) in found.available:
        found = _compare(ONNXFile.open(path, trust=True), provider, found)
    sys.stdout.write(msgspec.json.encode(found).decode())


def _compare(file: ONNXFile, provider: ProviderSettings, found: Computed) -> Computed:
    tokens = [1 + index % (file.spec.vocab_size - 1) for index in range(min(_PROMPT_TOKENS, file.spec.max_context))]
    decoded = tokens[:_DECODED_TOKENS]
    try:
        session = open_session(file.path, n_threads=0, provider=provider, log=LOG_VERBOSE)
        device = DeviceMemory(file, provider) if provider.memory else None
        runs = [_logits(file, session, *run, device) for run in ((tokens, _CHUNK), (decoded, 1))]
    except BackendError as error:
        return msgspec.structs.replace(found, problem=str(error))
    if not all(np.isfinite(logits).all() for logits in runs):
        return msgspec.structs.replace(found, problem="its logits are NaN or Inf")
    expected = _logits(file, open_session(file.path, n_threads=0), tokens, _CHUNK)[:-1]
    prompt, decode = (_error(logits, expected) for logits in runs)
    return msgspec.structs.replace(found, prompt_error=prompt, decode_error=decode)


def _logits(
    file: ONNXFile, session: Any, tokens: list[int], chunk: int, device: DeviceMemory | None = None
) -> F32Array:
    """The logits after each token of a sequence, ``chunk`` tokens in a run; and again, alone, those after the last."""
    guard = LibraryGuard("onnxruntime", file.files())
    stream = ONNXStream(session, file, len(tokens), guard, chunk=chunk, device=device)
    rows = stream.forward_all(tokens)
    stream.truncate(0)
    return np.vstack([rows, stream.forward(tokens)])


def _error(found: F32Array, all_expected: F32Array) -> float:
    n = len(found) - 1
    expected = np.vstack([all_expected[:n], all_expected[n - 1]])
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main(*sys.argv[1:])
