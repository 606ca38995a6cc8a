"""Cost of isolation per token: ``Engine.load(isolate=True)`` against the same backend in this process.

Models of random weights, so small that the pass itself takes little, with vocabularies from small to the largest of
published students (Qwen's): the messages and the copies of the logits are what remains. Single tokens are decoded by
both in turns, in blocks; the result is the median over the pairs of blocks of the difference of their medians. Of the
JSON, ``isolate_overhead_ms_per_token`` is the worst of all vocabularies, ``load_average`` says how busy the machine
was.

    python benchmarks/isolate.py --json
    python benchmarks/isolate.py --vocabulary 151936 --pairs 50
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sprat.export.gguf.random_weights import write_random
from sprat.runtime.arch.attention import GroupedAttentionSpec
from sprat.runtime.arch.presets import preset_spec
from sprat.runtime.backends.protocol import Backend, TokenStream
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, open_backend
from sprat.runtime.isolation.backend import open_isolated
from sprat.runtime.open_model import open_model

_VOCABULARIES = (512, 32_000, 102_400, 151_936)  # of the packaged student, Llama 2, DeepSeek-V2, Qwen2
_BLOCK = 40  # tokens
_WARM_UP = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Milliseconds of a token in this process and isolated: medians; and the median of the differences of pairs."""

    vocab_size: int
    pairs: int
    plain_ms_per_token: float
    isolated_ms_per_token: float
    overhead_ms_per_token: float


def _write(path: Path, vocab_size: int) -> None:
    """A model of one narrow layer."""
    whole = preset_spec("qwen3-0.6b", layers=1)
    assert isinstance(whole.attention, GroupedAttentionSpec)
    narrow = replace(
        whole,
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=64,
        attention=replace(whole.attention, n_heads=2, n_kv_heads=1),
    )
    write_random(path, narrow, f"vocabulary-{vocab_size}")


def _measure(vocab_size: int, n_pairs: int, n_threads: int) -> Overhead:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        _write(path, vocab_size)
        model = open_model(path)
        request = LoadRequest(
            file=model.file, spec=model.spec, context=n_pairs * _BLOCK + _WARM_UP, n_threads=n_threads
        )
        native = BackendChoice("native")
        backends = open_backend(native, request), open_isolated(native, request)
        try:
            pairs = _pairs(backends, request.context, n_pairs)
        finally:
            for backend in backends:
                backend.close()
    plain, isolated = np.median(pairs, axis=0)
    return Overhead(
        vocab_size=vocab_size,
        pairs=n_pairs,
        plain_ms_per_token=round(float(plain), 4),
        isolated_ms_per_token=round(float(isolated), 4),
        overhead_ms_per_token=round(float(np.median([second - first for first, second in pairs])), 4),
    )


def _pairs(backends: Sequence[Backend], capacity: int, n_pairs: int) -> list[tuple[float, float]]:
    """Milliseconds of a token in blocks of both backends, which take turns."""
    first, second = (backend.new_stream(capacity) for backend in backends)
    for stream in (first, second):
        for token in range(_WARM_UP):
            stream.forward([token])
    return [(_block(first), _block(second)) for _ in range(n_pairs)]


def _block(stream: TokenStream) -> float:
    """The median of a block of single tokens."""
    times = []
    for token in range(_BLOCK):
        began = time.perf_counter()
        stream.forward([token])
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, action="append", help="tokens; may be repeated")
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    arguments = parser.parse_args()
    busy = os.getloadavg()[0]
    rows = [_measure(size, arguments.pairs, arguments.threads) for size in arguments.vocabulary or _VOCABULARIES]
    if not arguments.json:
        for row in rows:
            print(
                f"vocabulary of {row.vocab_size}: {row.plain_ms_per_token} ms/token in this process, "
                f"{row.isolated_ms_per_token} isolated, {row.overhead_ms_per_token} more"
            )
        return
    record = {
        "isolate_overhead_ms_per_token": max(row.overhead_ms_per_token for row in rows),
        "threads": arguments.threads,
        "load_average": round(busy, 2),
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    _main()
