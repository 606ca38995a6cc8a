"""Child processes of ``vs_llamacpp.py``: one backend each; JSON lines as requests and answers.

llama.cpp runs through its own API and not through sprat's backend, so that sprat does not slow it down: 512 tokens per
ubatch (its default), flash attention on or off per context, no copy of the logits.

    python benchmarks/llamacpp_peer/worker.py {native,repacked,plain} FILE THREADS
"""

from __future__ import annotations

import importlib
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.files.gguf import GGUFFile

__all__ = ["RivalDiedError", "Worker"]

_CHUNK = 512
_FIRST_PROMPT = 64


class RivalDiedError(Exception):
    """A child process ended before it answered."""


class Worker:
    """A child process with one backend, seen from the parent.

    Args:
        backend: ``native``; ``repacked`` or ``plain`` for llama.cpp with or without repacked weights.
        path: the GGUF file.
        n_threads: number of threads.

    Raises:
        RivalDiedError: the backend aborts on the file, as llama.cpp does on some CPUs.
    """

    def __init__(self, backend: str, path: Path, n_threads: int) -> None:
        command = [sys.executable, __file__, backend, str(path), str(n_threads)]
        self.backend = backend
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.first_token_seconds: float = self._read()["seconds"]

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._child.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RivalDiedError(f"{self.backend} ended with status {self._child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Stream(Protocol):
    """A sequence in sprat or in llama.cpp."""

    def forward(self, tokens: Sequence[int]) -> Any: ...
    def truncate(self, length: int) -> None: ...


class _LlamaCpp:
    """A model in llama.cpp."""

    def __init__(self, path: Path, n_threads: int, *, repack: bool) -> None:
        import llama_cpp.llama_cpp as lib

        self._lib, self._n_threads = lib, n_threads
        params = lib.llama_model_default_params()
        params.use_extra_bufts = repack
        self._model = lib.llama_model_load_from_file(str(path).encode(), params)

    def new_stream(self, capacity: int, *, flash: bool) -> _LlamaCppStream:
        """A context; ``flash`` switches flash attention."""
        params = self._lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = capacity, _CHUNK, _CHUNK
        params.n_threads = params.n_threads_batch = self._n_threads
        params.flash_attn_type = int(flash)
        return _LlamaCppStream(self._lib, self._lib.llama_init_from_model(self._model, params))


class _LlamaCppStream:
    """A context of llama.cpp, which counts positions itself."""

    def __init__(self, lib: Any, context: Any) -> None:
        self._lib, self._context = lib, context

    def forward(self, tokens: Sequence[int]) -> None:
        """Decode, and wait for the logits after the last token."""
        ids = (self._lib.llama_token * len(tokens))(*tokens)  # the batch keeps a pointer to them
        if self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(ids, len(tokens))):
            raise SystemExit("llama_decode failed")
        self._lib.llama_get_logits(self._context)

    def truncate(self, length: int) -> None:
        """Remove all tokens from position ``length`` on."""
        self._lib.llama_memory_seq_rm(self._lib.llama_get_memory(self._context), 0, length, -1)


class _Native:
    """A model in sprat."""

    def __init__(self, path: Path, n_threads: int) -> None:
        from sprat.runtime.backends.native import NativeBackend
        from sprat.runtime.kernels.native import NativeKernels

        file = GGUFFile.open(path)
        self.spec = spec_from_metadata(file.metadata, file)
        self.backend = NativeBackend(self.spec, file, NativeKernels(n_threads))

    def new_stream(self, capacity: int, *, flash: bool) -> _Stream:
        """A stream; ``flash`` is ignored, since its attention never stores the scores."""
        return self.backend.new_stream(capacity)


class _Server:
    """Answers the parent's requests about one backend."""

    def __init__(self, backend: str, path: Path, n_threads: int) -> None:
        self._tokens: list[int] = np.random.default_rng(0).integers(0, 1000, 8192).tolist()
        self._streams: dict[tuple[int, bool], _Stream] = {}
        _import(backend)
        start = time.perf_counter()
        self._model = (
            _Native(path, n_threads)
            if backend == "native"
            else _LlamaCpp(path, n_threads, repack=backend == "repacked")
        )
        self._model.new_stream(1024, flash=True).forward(self._tokens[:_FIRST_PROMPT])
        self.first_token_seconds = time.perf_counter() - start

    def fill(self, past: int, flash: bool, keep: bool = False) -> dict[str, float]:
        """Prefill a new sequence to depth ``past``; without ``keep`` earlier ones are dropped."""
        if not keep:
            self._streams = {key: stream for key, stream in self._streams.items() if key[1] != flash}
        stream = self._streams[past, flash] = self._model.new_stream(past + 2 * _CHUNK, flash=flash)
        seconds = math.inf
        for at in range(0, past, _CHUNK):
            seconds = _timed(stream, self._tokens[at : at + _CHUNK])
        return {"seconds": seconds}

    def decode(self, past: int, flash: bool, n: int) -> dict[str, float]:
        """Seconds per token of ``n`` decoded tokens at depth ``past``."""
        stream = self._streams[past, flash]
        stream.truncate(past)
        stream.forward(self._tokens[:1])
        return {"seconds": sum(_timed(stream, [token]) for token in self._tokens[1 : n + 1]) / n}

    def prefill(self, past: int, flash: bool, n: int) -> dict[str, float]:
        """Seconds of a prefill of ``n`` tokens at depth ``past``."""
        self._streams[past, flash].truncate(past)
        return {"seconds": _timed(self._streams[past, flash], self._tokens[-n:])}

    def memory(self) -> dict[str, int]:
        """Resident bytes without the mapped file, and peak resident bytes."""
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"anonymous": int(fields["RssAnon"].split()[0]) * 1024, "peak": peak_kib * 1024}

    def routing(self) -> dict[str, float]:
        """Routing entropy over 256 tokens, as a share of the uniform distribution's; 1 for a dense model."""
        assert isinstance(self._model, _Native)
        if self._model.spec.moe is None:
            return {"entropy": 1.0}
        from sprat.app.bench.routing import RoutingEntropy  # imported here, to keep it out of llama.cpp's memory

        routing = RoutingEntropy()
        self._model.backend.new_stream(256, routing).forward(self._tokens[:256])
        share = routing.share(self._model.spec.moe.n_routed_experts)
        assert share is not None, "every MoE layer routed tokens"
        return {"entropy": share}


def _import(backend: str) -> None:
    """Import the code before the time to first token is measured."""
    importlib.import_module("sprat.runtime.backends.native" if backend == "native" else "llama_cpp.llama_cpp")


def _timed(stream: _Stream, tokens: Sequence[int]) -> float:
    start = time.perf_counter()
    stream.forward(tokens)
    return time.perf_counter() - start


def _serve(backend: str, path: str, n_threads: str) -> None:
    server = _Server(backend, Path(path), int(n_threads))
    print(json.dumps({"seconds": server.first_token_seconds}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(server, request.pop("do"))(**request)), flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
