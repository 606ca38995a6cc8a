"""The native backend against llama.cpp on the same file: speed, share of the memory's speed, memory, start.

Both run in child processes of their own and take turns, so that a neighbour's load meets both; every figure is the
median of the pairs. llama.cpp runs with and without repacking (where the processor survives it), and the faster one
counts for each kind of work. The last line is JSON; ratios above 1 mean that sprat is faster.

    python benchmarks/vs_llamacpp.py --shape deepseek-v2-lite --layers 6
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sprat.runtime.backends.backend import TokenStream
from sprat.runtime.gguf import GGUFFile
from sprat.runtime.gguf_metadata import spec_from_metadata

sys.path.insert(0, str(Path(__file__).parent))
from shapes import SHAPES, write_shape

_DECODED = 16
_CONTEXT = 4096
_RIVALS = ("llamacpp", "llamacpp-plain")


class Worker:
    """A child process with one backend."""

    def __init__(self, backend: str, path: Path, n_threads: int) -> None:
        command = [sys.executable, __file__, "--worker", backend, "--file", str(path), "--threads", str(n_threads)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.started = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(request) + "\n")
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
            raise SystemExit(f"a worker died with status {self._child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(backend: str, path: Path, n_threads: int) -> None:
    """The child's side: time what is asked for."""
    tokens = np.random.default_rng(0).integers(0, 1000, 8192).tolist()
    start = time.perf_counter()
    loaded, chosen = _load(backend, path, n_threads)
    stream: TokenStream = loaded.new_stream(1024)
    stream.extend(tokens[:64])
    _answer(ttft=time.perf_counter() - start)
    stream.close()
    for line in sys.stdin:
        request = json.loads(line)
        match request["do"]:
            case "context":
                stream = loaded.new_stream(request["length"] + 1024)
                for at in range(0, request["length"], 512):
                    stream.extend(tokens[at : at + 512])
                _answer()
            case "decode":
                _answer(seconds=_decode(stream, request["past"], tokens))
            case "prefill":
                stream.truncate(request["past"])
                start = time.perf_counter()
                stream.extend(tokens[: request["n"]])
                _answer(seconds=time.perf_counter() - start)
            case "rss":
                _answer(bytes=_own_bytes(), peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            case "entropy":
                _answer(**_routing(chosen, tokens))


def _decode(stream: TokenStream, past: int, tokens: list[int]) -> float:
    stream.truncate(past)
    stream.extend(tokens[:1])
    start = time.perf_counter()
    for token in tokens[1 : _DECODED + 1]:
        stream.extend([token])
    return (time.perf_counter() - start) / _DECODED


def _load(backend: str, path: Path, n_threads: int) -> tuple[Any, Any]:
    file = GGUFFile.open(path)
    spec = spec_from_metadata(file.metadata, file)
    if backend == "native":
        from sprat.runtime.backends.native import NativeBackend
        from sprat.runtime.kernels.native import NativeKernels

        native = NativeBackend(spec, file, NativeKernels(n_threads))
        return native, native
    from sprat.runtime.backends.llamacpp import LlamaCppBackend
    from sprat.runtime.backends.probe import probe

    repack = backend == "llamacpp" and probe(path).use_extra_bufts
    return LlamaCppBackend(path, n_threads=n_threads, use_extra_bufts=repack), None


def _routing(backend: Any, tokens: list[int]) -> dict[str, float]:
    """Entropy of the experts chosen for 256 tokens, as a share of the even one, averaged over layers."""
    chosen: dict[int, Counter[int]] = {}
    stream = backend.new_stream(256, lambda layer, experts: chosen.setdefault(layer, Counter()).update(experts.ravel()))
    stream.extend(tokens[:256])
    shares = []
    for counts in chosen.values():
        p = np.array(list(counts.values())) / counts.total()
        shares.append(float(-(p * np.log(p)).sum()) / math.log(64))
    return {"entropy": statistics.mean(shares) if shares else 1.0}


def _own_bytes() -> int:
    """Resident bytes that are not the mapped file."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def _answer(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def read_bandwidth(path: Path, n_threads: int) -> float:
    """Bytes per second that all threads together read from the file in the page cache, the best of three."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        words = np.frombuffer(mapped, np.uint64, min(len(mapped), 2 << 30) // 8)
        parts = np.array_split(words, n_threads * 16)
        seconds = []
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in range(3):
                start = time.perf_counter()
                list(pool.map(np.max, parts))
                seconds.append(time.perf_counter() - start)
        total = words.nbytes
        del words, parts
    return total / min(seconds)


def bytes_per_token(path: Path) -> int:
    """Packed weights that one token reads: all matrices but the embeddings, and of the experts the chosen ones."""
    with GGUFFile.open(path) as file:
        spec = spec_from_metadata(file.metadata, file)
        share = spec.moe.n_experts_per_token / spec.moe.n_routed_experts if spec.moe else 1.0
        sizes = {name: info.nbytes for name, info in file.tensors.items() if name != "token_embd.weight"}
    return int(sum(size * (share if "_exps." in name else 1.0) for name, size in sizes.items()))


def compare(workers: dict[str, Worker], pairs: int, **request: Any) -> tuple[float, float]:
    """Median seconds of ours, and the median ratio of the best rival's to ours."""
    ours, ratios = [], []
    for _ in range(pairs):
        seconds = {name: worker.ask(**request)["seconds"] for name, worker in workers.items()}
        ours.append(seconds["native"])
        ratios.append(min(value for name, value in seconds.items() if name != "native") / seconds["native"])
    return statistics.median(ours), statistics.median(ratios)


def measure(path: Path, n_threads: int, pairs: int) -> dict[str, float]:
    """All figures for one file."""
    bandwidth = read_bandwidth(path, n_threads)
    workers = {name: Worker(name, path, n_threads) for name in ("native", *_RIVALS)}
    ttft = min(workers[name].started["ttft"] for name in _RIVALS) / workers["native"].started["ttft"]
    out = {"read_bandwidth": bandwidth, "ttft_ratio": ttft, "ttft_seconds": workers["native"].started["ttft"]}
    for past, suffix in ((0, ""), (_CONTEXT, "_4096")):
        for worker in workers.values():
            worker.ask(do="context", length=past)
        seconds, out[f"decode{suffix}_ratio"] = compare(workers, pairs, do="decode", past=past)
        out[f"decode{suffix}_tokens_per_second"] = 1 / seconds
        name = "prefill_512" + ("_at_4096" if past else "")
        seconds, out[f"{name}_ratio"] = compare(workers, pairs, do="prefill", past=past, n=512)
        out[f"{name}_tokens_per_second"] = 512 / seconds
    out["decode_limit_share"] = out["decode_tokens_per_second"] * bytes_per_token(path) / bandwidth
    out["decode_4096_share_of_empty"] = out["decode_4096_tokens_per_second"] / out["decode_tokens_per_second"]
    out["rss_extra_bytes"] = workers["native"].ask(do="rss")["bytes"]
    out["rss_extra_bytes_llamacpp"] = min(workers[name].ask(do="rss")["bytes"] for name in _RIVALS)
    out["routing_entropy"] = workers["native"].ask(do="entropy")["entropy"]
    for worker in workers.values():
        worker.close()
    return out


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="deepseek-v2-lite")
    parser.add_argument("--quant", default="Q4_0")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--file", type=Path, help="measure this GGUF instead of a random one")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments.worker, arguments.file, arguments.threads)
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = arguments.file or Path(folder) / "shape.gguf"
        if not arguments.file:
            write_shape(path, arguments.shape, arguments.quant, arguments.layers)
        figures = measure(path, arguments.threads, arguments.pairs)
    if not arguments.json:
        for name, value in figures.items():
            print(f"{name:32} {value:16.4g}")
    print(json.dumps(figures))


if __name__ == "__main__":
    _main()
