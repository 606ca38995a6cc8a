"""Time from a cancel or a timeout to the end of an answer, in prefill and in decode.

Files of published shapes with random weights on the native backend. Every answer is ended at a random moment:
by ``cancel`` from another thread, or by its ``timeout``. The latency is the time from that moment until the iterator
has ended. Of the JSON, ``cancel_p99_ms`` and ``timeout_overshoot_p99_ms`` are the worst of all shapes and phases, and
``load_average`` says how busy the machine was.

    python benchmarks/cancel.py --json
    python benchmarks/cancel.py --shape r1-distill-qwen-1.5b --repetitions 200 --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from sprat.arrays import F32Array
from sprat.export.gguf.random_weights import cached_preset
from sprat.runtime.backends.protocol import Backend
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, open_backend
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.options import StopConditions
from sprat.runtime.generate.results import FinishReason
from sprat.runtime.generate.transcript import Transcript
from sprat.runtime.memory.footprint import DEFAULT_BATCH
from sprat.runtime.open_model import open_model

Phase = Literal["prefill", "decode"]

_LAYERS = {"deepseek-v2-lite": 6, "r1-distill-qwen-1.5b": None}  # None for all: V2-Lite whole takes 9 GB
_PROMPT, _SHORT_PROMPT = 2048, 128
_SPAN_S: dict[Phase, float] = {"prefill": 1.5, "decode": 0.5}  # the moments are spread over this time, at most
_WAIT_S = 120  # for an answer that should have ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Milliseconds from a cancel, or from a deadline, until the answer has ended."""

    shape: str
    layers: int
    phase: Phase
    repetitions: int
    cancel_p50_ms: float
    cancel_p99_ms: float
    timeout_overshoot_p50_ms: float
    timeout_overshoot_p99_ms: float


class _Answers:
    """Answers of random tokens, without a tokenizer, which files of random weights do not have."""

    def __init__(self, backend: Backend, batch: int) -> None:
        self._backend, self._batch = backend, batch
        self._tokens = np.random.default_rng(0).integers(0, backend.vocab_size, _PROMPT).tolist()

    def start(self, phase: Phase, timeout: float | None = None) -> Generation:
        """An answer that is in ``phase`` until it is ended."""
        transcript = Transcript(self._backend.new_stream(_PROMPT + _PROMPT))
        return Generation(
            transcript,
            self._tokens[: _PROMPT if phase == "prefill" else _SHORT_PROMPT],
            sampler=self,
            decoder=self,
            eog_ids=(),
            stop_conditions=StopConditions(timeout=timeout),
            batch=self._batch,
            on_end=transcript.close,
        )

    def sample(self, logits: F32Array, _history: Sequence[int], _allowed: object) -> tuple[int, float]:
        """Greedy."""
        return int(logits.argmax()), 0.0

    def feed(self, _token_id: int) -> str:
        """No text."""
        return ""

    special_text = feed

    def flush(self) -> str:
        """No text."""
        return ""


def _cancel_ms(answers: _Answers, phase: Phase, delay_s: float) -> float:
    """From ``cancel()`` to the end of the iterator, in the thread that iterates."""
    generation, begun, ended_at = answers.start(phase), threading.Event(), 0.0
    if phase == "decode":
        next(generation)  # the prompt

    def iterate() -> None:
        nonlocal ended_at
        begun.set()
        for _ in generation:
            pass
        ended_at = time.perf_counter()

    thread = threading.Thread(target=iterate)
    thread.start()
    begun.wait()
    time.sleep(delay_s)
    cancelled_at = time.perf_counter()
    generation.cancel()
    thread.join(_WAIT_S)
    _expect(generation, FinishReason.CANCELLED)
    return 1e3 * (ended_at - cancelled_at)


def _overshoot_ms(answers: _Answers, phase: Phase, timeout_s: float) -> float:
    """Time after the deadline at which the iterator ends."""
    started = time.perf_counter()
    generation = answers.start(phase, timeout_s)
    for _ in generation:
        pass
    overshoot = 1e3 * (time.perf_counter() - started - timeout_s)
    _expect(generation, FinishReason.TIMEOUT)
    return overshoot


def _expect(generation: Generation, reason: FinishReason) -> None:
    found = generation.summary.finish_reason
    assert found is reason, f"the answer ended by {found}, expected {reason}: use a longer prompt"


def _measure(shape: str, arguments: argparse.Namespace) -> list[Latencies]:
    layers = arguments.layers or _LAYERS.get(shape)
    model = open_model(cached_preset(shape, arguments.quant, layers))
    request = LoadRequest(
        file=model.file, spec=model.spec, context=2 * _PROMPT, n_threads=arguments.threads, batch=arguments.batch
    )
    backend = open_backend(BackendChoice("native"), request)
    answers = _Answers(backend, arguments.batch)
    _seconds(lambda: answers.start("decode"))  # reads the weights for the first time
    prompt_s = 0.5 * _PROMPT / _SHORT_PROMPT * _seconds(lambda: answers.start("decode"))  # long chunks are faster
    found = []
    for phase, span_s in (("prefill", min(prompt_s, _SPAN_S["prefill"])), ("decode", _SPAN_S["decode"])):
        moments = np.random.default_rng(1).uniform(0.02, 1, arguments.repetitions) * span_s
        first_s = _seconds(lambda: answers.start("decode")) if phase == "decode" else 0.0
        cancels = [_cancel_ms(answers, phase, float(moment)) for moment in moments]
        timeouts = [_overshoot_ms(answers, phase, first_s + float(moment)) for moment in moments]
        found.append(
            Latencies(
                shape=shape,
                layers=model.spec.n_layers,
                phase=phase,
                repetitions=arguments.repetitions,
                cancel_p50_ms=_percentile(cancels, 50),
                cancel_p99_ms=_percentile(cancels, 99),
                timeout_overshoot_p50_ms=_percentile(timeouts, 50),
                timeout_overshoot_p99_ms=_percentile(timeouts, 99),
            )
        )
    backend.close()
    return found


def _seconds(start: Callable[[], Generation]) -> float:
    """Time to the first token of an answer."""
    began = time.perf_counter()
    generation = start()
    next(generation)
    generation.close()
    return time.perf_counter() - began


def _percentile(values: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 2)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="a preset; may be repeated. By default V2-Lite and R1-1.5B")
    parser.add_argument("--layers", type=int, help="by default 6 of V2-Lite's, and all of others")
    parser.add_argument("--quant", default="Q4_0")
    parser.add_argument("--batch", type=int, default=DEFAULT_BATCH)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    arguments = parser.parse_args()
    busy = os.getloadavg()[0]
    rows = [row for shape in arguments.shape or _LAYERS for row in _measure(shape, arguments)]
    if not arguments.json:
        for row in rows:
            print(
                f"{row.shape} ({row.layers} layers), {row.phase}: cancel p50 {row.cancel_p50_ms} ms, "
                f"p99 {row.cancel_p99_ms} ms; overshoot of a timeout p50 {row.timeout_overshoot_p50_ms} ms, "
                f"p99 {row.timeout_overshoot_p99_ms} ms"
            )
        return
    record = {
        "cancel_p99_ms": max(row.cancel_p99_ms for row in rows),
        "timeout_overshoot_p99_ms": max(row.timeout_overshoot_p99_ms for row in rows),
        "threads": arguments.threads,
        "batch": arguments.batch,
        "quant": arguments.quant,
        "load_average": round(busy, 2),
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    _main()
