"""The child process of :mod:`sprat.runtime.backends.providers.placement`.

``python -m sprat.runtime.backends.providers.child MODEL PROVIDER`` loads a graph with onnxruntime's verbose log on
standard error, which lists the provider of every node, runs a few tokens with the provider and on the CPU, and prints a
:class:`Computed` as JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sprat.arrays import F32Array
from sprat.errors import BackendError
from sprat.runtime.backends.library_guard import LibraryGuard
from sprat.runtime.backends.onnx.backend import ONNXStream
from sprat.runtime.backends.onnx.session import onnxruntime, ort_errors
from sprat.runtime.backends.providers.names import CPU
from sprat.runtime.files.onnx.file import ONNXFile

__all__ = ["Computed", "main"]

_TOKENS = range(1, 13)
_VERBOSE, _ERRORS = 0, 3


class Computed(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider computed.

    Attributes:
        version: of onnxruntime.
        available: onnxruntime's names of the providers in this build.
        prompt_error: largest difference from the CPU's logits over the tokens of a prompt in one run, as a share of
            the largest logit; ``None`` where it was not computed.
        decode_error: the same for these tokens in a run each, as in decode.
        problem: why nothing was computed.
    """

    version: str
    available: tuple[str, ...]
    prompt_error: float | None = None
    decode_error: float | None = None
    problem: str = ""


def main(path: str, provider: str) -> None:
    """Compute, and print the result."""
    ort = onnxruntime()
    found = Computed(version=ort.__version__, available=tuple(ort.get_available_providers()))
    if provider in found.available:
        found = _compare(ONNXFile.open(path), provider, found)
    sys.stdout.write(msgspec.json.encode(found).decode())


def _compare(file: ONNXFile, provider: str, found: Computed) -> Computed:
    try:
        session = _session(file.path, list(dict.fromkeys((provider, CPU))), _VERBOSE)
        prompt, decoded = (_logits(file, session, chunk) for chunk in (len(_TOKENS), 1))
    except BackendError as error:
        return msgspec.structs.replace(found, problem=str(error))
    expected = _logits(file, _session(file.path, [CPU], _ERRORS), len(_TOKENS))
    return msgspec.structs.replace(found, prompt_error=_error(prompt, expected), decode_error=_error(decoded, expected))


def _logits(file: ONNXFile, session: Any, chunk: int) -> F32Array:
    """The logits after each token of a new sequence, with ``chunk`` tokens in a run."""
    guard = LibraryGuard("onnxruntime", file.files())
    stream = ONNXStream(session, file, len(_TOKENS), guard, chunk=chunk)
    return stream.forward_all([token % file.spec.vocab_size for token in _TOKENS])


def _session(path: Path, providers: list[str], log: int) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = log
    with ort_errors(f"{path}: onnxruntime cannot load this model with {providers[0]}"):
        return ort.InferenceSession(path, options, providers=providers)


def _error(found: F32Array, expected: F32Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main(*sys.argv[1:])
