"""Cost and gain of the server and of many sessions.

    python benchmarks/serve.py --json
    python benchmarks/serve.py --only four_sessions --tokens 64 --pairs 5
    python benchmarks/serve.py --only memory --requests 100000

``four_sessions_throughput_ratio``: tokens per second of four sessions over those of one; DeepSeek-V2-Lite's shape
with six layers and random weights, native backend. ``prefix_ttft_ratio``: time to the first token of a prompt of
3,000 tokens the first time, over that of a prompt with the same 3,000 tokens before it, over HTTP.
``overhead_ms_per_token``: a streamed answer over HTTP less the same answer in Python. ``vanish_p50_ms``: from a
client's close to the free slot. ``rss_growth``: resident memory of the server after the requests over that after a
warm-up, less 1; the warm-up is a tenth as many requests, and 1,000 at least where as many are asked for. The last
four: packaged student. ``speculation_json_ratio`` and ``speculation_worst_ratio``: as ``sprat bench --speculate``
measures them, packaged student. ``schema_mask_share``: ``constrain.py``. Medians; sides alternate. ``load_average``
says how busy the machine was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from constrain import measure as measure_masks

import sprat
from sprat.app.bench.speculation import bench_speculation
from sprat.app.demo_bundle import demo_gguf
from sprat.export.gguf.random_weights import cached_preset
from sprat.runtime.backends.protocol import Backend
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, open_backend
from sprat.runtime.open_model import open_model
from sprat.runtime.pass_queue import PassQueue, forward_in_turn
from sprat.server.application import application
from sprat.server.settings import ServerSettings

SHAPE, LAYERS, QUANT = "deepseek-v2-lite", 6, "Q4_0"
PREFIX = 3000
_WARM_UP = 1000  # requests, after which the caches of prompts and answers are full
QUESTION = [{"role": "user", "content": "What is 347 plus 285?"}]


def four_sessions(tokens: int, pairs: int, threads: int) -> dict[str, float]:
    """Tokens per second of one session and of four."""
    model = open_model(cached_preset(SHAPE, QUANT, LAYERS), "native")
    request = LoadRequest(file=model.file, spec=model.spec, context=2048, n_threads=threads)
    backend = open_backend(BackendChoice("native"), request)
    rates: dict[int, list[float]] = {1: [], 4: []}
    for _ in range(pairs):
        for n_sessions, found in rates.items():
            found.append(_tokens_per_s(backend, n_sessions, tokens))
    ratios = [four / one for one, four in zip(rates[1], rates[4], strict=True)]
    return {
        "four_sessions_throughput_ratio": statistics.median(ratios),
        "one_session_tokens_per_s": statistics.median(rates[1]),
        "four_sessions_tokens_per_s": statistics.median(rates[4]),
    }


def _tokens_per_s(backend: Backend, n_sessions: int, tokens: int) -> float:
    queue, ready = PassQueue(backend), threading.Barrier(n_sessions + 1)

    def decode(seed: int) -> None:
        stream, chosen = backend.new_stream(tokens + 32), random.Random(seed)
        stream.forward([chosen.randrange(backend.vocab_size) for _ in range(16)])
        with queue.turns():
            ready.wait()
            for _ in range(tokens):
                forward_in_turn(stream, [chosen.randrange(backend.vocab_size)])  # random, so that experts differ
        stream.close()

    workers = [threading.Thread(target=decode, args=(seed,)) for seed in range(n_sessions)]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return n_sessions * tokens / (time.perf_counter() - began)


@contextmanager
def _server() -> Iterator[tuple[str, Any]]:
    """The packaged student, served by a thread; its address, and the application's state."""
    import uvicorn

    app = application({"student": demo_gguf("int8")}, ServerSettings(port=0))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", app.state
    finally:
        server.should_exit = True
        thread.join()


def _post(address: str, path: str, **body: Any) -> Any:
    data = json.dumps({"model": "student", "temperature": 0, **body}).encode()
    return urlopen(Request(f"{address}{path}", data, {"Content-Type": "application/json"}))


def prefix(pairs: int) -> dict[str, float]:
    """Time to the first token, of a prompt whose 3,000 first tokens are new, and of one where they are not."""
    chosen, ratios, cold_ms, warm_ms = random.Random(0), list[float](), list[float](), list[float]()
    with _server() as (address, _):
        _first_token_s(address, [1, 2, 3])
        for _ in range(pairs):
            tokens = [chosen.randrange(300, 1000) for _ in range(PREFIX)]
            cold, warm = (_first_token_s(address, [*tokens, 1, last]) for last in (2, 3))
            ratios.append(cold / warm)
            cold_ms.append(1e3 * cold)
            warm_ms.append(1e3 * warm)
    return {
        "prefix_ttft_ratio": statistics.median(ratios),
        "cold_ttft_ms": statistics.median(cold_ms),
        "warm_ttft_ms": statistics.median(warm_ms),
    }


def _first_token_s(address: str, tokens: list[int]) -> float:
    began = time.perf_counter()
    with _post(address, "/v1/completions", prompt=tokens, stream=True, max_tokens=1) as response:
        response.readline()
        seconds = time.perf_counter() - began
        response.read()
    return seconds


def overhead(pairs: int) -> dict[str, float]:
    """Milliseconds per token that HTTP adds to a streamed answer."""
    added = []
    with _server() as (address, state):
        _stream_over_http(address)
        engine: sprat.Engine = state.pool.models["student"].engine.engine
        for _ in range(pairs):
            began = time.perf_counter()
            n_tokens = engine.stream_chat(QUESTION, temperature=0).completion()["usage"]["completion_tokens"]
            in_python = time.perf_counter() - began
            began = time.perf_counter()
            _stream_over_http(address)
            added.append(1e3 * (time.perf_counter() - began - in_python) / n_tokens)
    return {"overhead_ms_per_token": statistics.median(added)}


def _stream_over_http(address: str) -> None:
    with _post(address, "/v1/chat/completions", messages=QUESTION, stream=True) as response:
        response.read()


def vanish(pairs: int) -> dict[str, float]:
    """Milliseconds from the close of a client that waits for an endless answer until its slot is free."""
    found = []
    with _server() as (address, state):
        _stream_over_http(address)
        engine: sprat.AsyncEngine = state.pool.models["student"].engine
        for _ in range(pairs):
            body = {"model": "student", "prompt": "x", "max_tokens": 4000, "min_tokens": 4000}
            data = json.dumps(body).encode()
            host, port = address.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as client:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
                client.sendall(head.encode() + data)
                _wait(lambda: engine.n_running == 1)
            closed = time.perf_counter()
            _wait(lambda: engine.n_running == 0)
            found.append(1e3 * (time.perf_counter() - closed))
    return {"vanish_p50_ms": statistics.median(found), "vanish_max_ms": max(found)}


def _wait(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.0005)


def memory(requests: int) -> dict[str, float]:
    """Growth of resident memory over many short requests, after a warm-up."""
    with _server() as (address, _):
        _ask(address, max(requests // 10, min(requests, _WARM_UP)))
        before = _resident_bytes()
        _ask(address, requests)
        after = _resident_bytes()
    return {"rss_growth": after / before - 1, "rss_warm_bytes": before, "rss_bytes": after, "requests": requests}


def masks(tokens: int, threads: int) -> dict[str, float]:
    """The cost of masks relative to a token, of DeepSeek-V2-Lite's shape with six layers."""
    return {"schema_mask_share": measure_masks(SHAPE, LAYERS, tokens, threads).schema_mask_share}


def speculation(pairs: int) -> dict[str, float]:
    """Speed with drafts over that without: of each kind of answers, the better of the two in JSON, the worst of all."""
    ratios = {speed.answers: speed.ratio for speed in bench_speculation(demo_gguf("int8"), repetitions=pairs)}
    return {
        "speculation_json_ratio": max(ratios["commands"], ratios["json"]),
        "speculation_worst_ratio": min(ratios.values()),
        **{f"speculation_of_{answers}": ratio for answers, ratio in ratios.items()},
    }


def _ask(address: str, times: int) -> None:
    for number in range(times):
        messages = [{"role": "user", "content": f"What is {number % 900 + 100} plus 25?"}]
        with _post(address, "/v1/chat/completions", messages=messages, max_tokens=4) as response:
            response.read()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _main() -> None:
    parts = ("four_sessions", "prefix", "overhead", "vanish", "masks", "speculation", "memory")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=parts, action="append")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="of each session")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measure: dict[str, Callable[[], dict[str, float]]] = {
        "four_sessions": lambda: four_sessions(arguments.tokens, arguments.pairs, arguments.threads),
        "prefix": lambda: prefix(arguments.pairs),
        "overhead": lambda: overhead(arguments.pairs),
        "vanish": lambda: vanish(arguments.pairs),
        "masks": lambda: masks(arguments.tokens, arguments.threads),
        "speculation": lambda: speculation(arguments.pairs),
        "memory": lambda: memory(arguments.requests),
    }
    found: dict[str, float] = {"load_average": os.getloadavg()[0]}
    for part in arguments.only or parts:
        found |= measure[part]()
    print(json.dumps(found) if arguments.json else "\n".join(f"{name}: {value:.4g}" for name, value in found.items()))


if __name__ == "__main__":
    _main()
