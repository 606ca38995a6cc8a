"""Child processes of ``benchmarks/onnx.py``: one engine each; JSON lines as requests and answers.

onnxruntime-genai runs through its generator with greedy sampling, as in its examples.

    python benchmarks/onnx_rivals/worker.py {native,onnx,genai} PATH THREADS [MEMORY_BYTES]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Worker"]

_CAPACITY = 2304
_WARM_UP = 3


class Worker:
    """A child process with one engine, seen from the parent.

    Args:
        engine: ``native``, ``onnx`` or ``genai``.
        path: a GGUF, a ``model.onnx``, or a model folder of onnxruntime-genai.
        n_threads: number of threads; genai ignores it and uses all cores.
        memory_bytes: memory limit of sprat's backends.
    """

    def __init__(self, engine: str, path: Path, n_threads: int, memory_bytes: int | None = None) -> None:
        budget = [] if memory_bytes is None else [str(memory_bytes)]
        self._command = [sys.executable, __file__, engine, str(path), str(n_threads), *budget]
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def decode(self, past: int, n: int) -> float:
        """Seconds per token, mean over ``n`` tokens at depth ``past``."""
        return self._ask(do="decode", past=past, n=n)["seconds"]

    def peak_bytes(self) -> int:
        """Peak memory of loading and running so far, minus that of the imported libraries."""
        return int(self._ask(do="memory")["peak_bytes"])

    def uses_low_memory(self) -> bool:
        """Whether the backend runs in its low-memory form."""
        return bool(self._ask(do="form")["low_memory"])

    def _ask(self, **request: Any) -> dict[str, float]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._command)} ended with status {self._child.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer


class _Sprat:
    """A backend of sprat without tokenizer and engine; one stream per depth."""

    def __init__(self, path: str, n_threads: int, loader: str, memory_bytes: int | None) -> None:
        from sprat.runtime.backends.registry import LoadRequest, choose, open_backend
        from sprat.runtime.open_model import open_model

        model = open_model(path)
        request = LoadRequest(
            file=model.file, spec=model.spec, context=_CAPACITY, n_threads=n_threads, memory_bytes=memory_bytes
        )
        self._backend = open_backend(choose(loader, request), request)
        self._streams: dict[int, Any] = {}
        self.uses_low_memory = loader == "onnx" and bool(self._backend.low_memory)

    def after(self, past: list[int]) -> Callable[[int], None]:
        """A function that appends one token to the sequence ``past``."""
        if len(past) not in self._streams:
            self._streams[len(past)] = self._backend.new_stream(_CAPACITY)
            self._streams[len(past)].forward(past)
        stream = self._streams[len(past)]
        stream.truncate(len(past))
        return lambda token: stream.forward([token])


class _GenAI:
    """onnxruntime-genai; one generator per depth."""

    uses_low_memory = False

    def __init__(self, path: str) -> None:
        import onnxruntime_genai as genai

        self._genai, self._model = genai, genai.Model(path)
        self._generators: dict[int, Any] = {}

    def after(self, past: list[int]) -> Callable[[int], None]:
        """A function that appends one token, chosen by genai, to the sequence ``past``."""
        if len(past) not in self._generators:
            params = self._genai.GeneratorParams(self._model)
            params.set_search_options(max_length=_CAPACITY, min_length=_CAPACITY, do_sample=False)
            self._generators[len(past)] = self._genai.Generator(self._model, params)
            self._generators[len(past)].append_tokens(np.array(past, np.int32))
        generator = self._generators[len(past)]
        generator.rewind_to(len(past))
        return lambda _token: generator.generate_next_token()


def _serve(engine: str, path: str, n_threads: int, memory_bytes: int | None = None) -> None:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    _import_libraries(engine)
    before = _status("VmRSS")
    model = _GenAI(path) if engine == "genai" else _Sprat(path, n_threads, engine, memory_bytes)
    tokens: list[int] = np.random.default_rng(0).integers(0, 1000, _CAPACITY).tolist()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "memory":
            answer: dict[str, float] = {"peak_bytes": _status("VmHWM") - before}
        elif request["do"] == "form":
            answer = {"low_memory": model.uses_low_memory}
        else:
            answer = {"seconds": _decode(model, tokens, request["past"], request["n"])}
        print(json.dumps(answer), flush=True)


def _import_libraries(engine: str) -> None:
    if engine == "genai":
        import onnxruntime_genai  # noqa: F401
    else:
        import sprat.runtime.open_model  # noqa: F401
    if engine == "onnx":
        import onnx  # noqa: F401

        from sprat.runtime.backends.providers.library import onnxruntime

        onnxruntime()


def _decode(model: _Sprat | _GenAI, tokens: list[int], past: int, n: int) -> float:
    append = model.after(tokens[:past])
    for token in tokens[past : past + _WARM_UP]:
        append(token)
    start = time.perf_counter()
    for token in tokens[past + _WARM_UP : past + _WARM_UP + n]:
        append(token)
    return (time.perf_counter() - start) / n


def _status(key: str) -> int:
    """Bytes of an entry in /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
