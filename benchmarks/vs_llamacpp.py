"""The native backend compared with llama.cpp on the same file: speed, share of memory bandwidth, memory, start-up.

Each runs in its own child process. A first round finds llama.cpp's fastest configuration for each test (weights
repacked or not, flash attention on or off); then sprat and that one take turns, so that noise from other tenants
affects both. Every value is the median of the pairs. A ratio above 1 means that sprat is faster.

The last line is JSON. ``read_bandwidth`` is a plain read of the file from the page cache with all threads and four
streams per thread, measured after each decode; a single stream per thread, as in NumPy or memcpy, gets less.

    python benchmarks/vs_llamacpp.py --shape deepseek-v2-lite --layers 6
    python benchmarks/vs_llamacpp.py --shape demo    # the packaged student in int4
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sprat import demo
from sprat.export.pipeline import export
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.arch.tensors import is_routed_expert
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.kernels.native import NativeKernels

sys.path.insert(0, str(Path(__file__).parent))
from llamacpp_peer.shapes import SHAPES, write_preset
from llamacpp_peer.worker import RivalDiedError, Worker

_DECODED = 16
_DECODED_SMALL = 128  # below 100 MB, where sixteen tokens of 0.5 ms are too short to measure
_PREFILL = 512
_PAUSE_S = 0.1  # before each turn: llama.cpp's threads spin for about 20 ms after their last product
_READ_BYTES = 1 << 30
_STUDENT = "demo"


@dataclass(frozen=True, slots=True)
class Rival:
    """llama.cpp in one configuration."""

    worker: Worker
    flash: bool

    def __str__(self) -> str:
        return f"{self.worker.backend}, flash attention {'on' if self.flash else 'off'}"


@dataclass(slots=True)
class Match:
    """Both sides, and the results."""

    path: Path
    native: Worker
    rivals: list[Rival]
    n_threads: int
    n_pairs: int
    context: int
    results: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Decode and prefill, at depth 0 and at a large depth."""
        self.results["threads"] = self.n_threads
        n_decoded = _DECODED if self.path.stat().st_size > 100e6 else _DECODED_SMALL
        decode = self._compare("decode", 0, n_decoded, also=reader(self.path, self.n_threads))
        self.results["decode_limit_share"] = statistics.median(
            bytes_per_token(self.path) / seconds / read for seconds, _, read in decode
        )
        self.results["read_bandwidth"] = statistics.median(read for *_, read in decode)
        self._compare("prefill", 0, _PREFILL)
        self._compare("decode", self.context, n_decoded)
        self._compare("prefill", self.context, _PREFILL)
        ours, theirs = self.native.ask("memory"), [rival.worker.ask("memory") for rival in self.rivals]
        self.results["rss_extra_bytes"] = ours["anonymous"]
        self.results["rss_extra_bytes_llamacpp"] = min(memory["anonymous"] for memory in theirs)
        self.results["rss_peak_bytes"] = ours["peak"]
        self.results["rss_peak_bytes_llamacpp"] = min(memory["peak"] for memory in theirs)
        self.results[f"decode_{self.context}_share_of_empty"] = self._share_of_empty(n_decoded)
        self.results["routing_entropy"] = self.native.ask("routing")["entropy"]

    def time_first_tokens(self) -> None:
        """Seconds from process start to the first token of a prompt of 64; each pair starts both again."""
        quickest = min(self.rivals, key=lambda rival: rival.worker.first_token_seconds).worker.backend
        pairs = [(_start(self, "native"), _start(self, quickest)) for _ in range(self.n_pairs)]
        self.results["ttft_ratio"] = statistics.median(theirs / ours for ours, theirs in pairs)
        self.results["ttft_seconds"] = statistics.median(ours for ours, _ in pairs)

    def _share_of_empty(self, n: int) -> float:
        """Sprat's decode speed at the large depth / at depth 0, in turns, since a machine drifts within minutes."""
        self.native.ask("fill", past=0, flash=True, keep=True)
        turns = [
            [_turn(self.native, "decode", past, n, flash=True) for past in (0, self.context)]
            for _ in range(2 * self.n_pairs)
        ]
        return statistics.median(empty / full for empty, full in turns)

    def _compare(
        self, work: str, past: int, n: int, also: Callable[[], float] = float
    ) -> list[tuple[float, float, float]]:
        """For each pair: seconds of sprat, seconds of the best rival, and the result of ``also``."""
        name = _name(work, past)
        if work == "decode":
            self._fill(past)
        best = self._best(work, past)
        log(f"{name}: llama.cpp is fastest with {best}")
        pairs = []
        for _ in range(self.n_pairs):
            ours = _turn(self.native, work, past, n, flash=True)
            pairs.append((ours, _turn(best.worker, work, past, n, flash=best.flash), also()))
        n_timed = 1 if work == "decode" else n
        self.results[f"{name}_ratio"] = statistics.median(theirs / ours for ours, theirs, _ in pairs)
        for side, seconds in zip(("", "_llamacpp"), zip(*(pair[:2] for pair in pairs), strict=True), strict=True):
            self.results[f"{name}_tokens_per_second{side}"] = n_timed / statistics.median(seconds)
        self.results[f"{name}_llamacpp"] = str(best)
        return pairs

    def _fill(self, past: int) -> None:
        """New contexts for all; at a depth above 0 only for llama.cpp's fastest weight layouts at depth 0."""
        if past:
            winners = {self.results[f"{name}_llamacpp"].split(",")[0] for name in ("decode", "prefill_512")}
            self.rivals = [rival for rival in self.rivals if rival.worker.backend in winners]
        self.native.ask("fill", past=past, flash=True)
        for rival in self.rivals:
            rival.worker.ask("fill", past=past, flash=rival.flash)
            log(f"depth {past}: {rival}")

    def _best(self, work: str, past: int) -> Rival:
        """The rival that is fastest in one short run."""
        if len(self.rivals) == 1:
            return self.rivals[0]
        n = 2 if work == "decode" else _PREFILL
        return min(self.rivals, key=lambda rival: _turn(rival.worker, work, past, n, flash=rival.flash))


def _name(work: str, past: int) -> str:
    """Key of a result: ``decode``, ``decode_4096``, ``prefill_512``, ``prefill_512_at_4096``."""
    if not past:
        return {"decode": "decode", "prefill": f"prefill_{_PREFILL}"}[work]
    return {"decode": f"decode_{past}", "prefill": f"prefill_{_PREFILL}_at_{past}"}[work]


def _turn(worker: Worker, work: str, past: int, n: int, *, flash: bool) -> float:
    """Seconds of one side, after a pause in which the other side's threads go to sleep."""
    time.sleep(_PAUSE_S)
    seconds: float = worker.ask(work, past=past, flash=flash, n=n)["seconds"]
    return seconds


def _start(match: Match, backend: str) -> float:
    worker = Worker(backend, match.path, match.n_threads)
    worker.close()
    return worker.first_token_seconds


def reader(path: Path, n_threads: int) -> Callable[[], float]:
    """A function that measures the bandwidth of a plain read with all threads: the best of three passes over 1 GiB."""
    content = np.memmap(path, np.uint8, "r")[:_READ_BYTES]
    kernels = NativeKernels(n_threads)

    def read() -> float:
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            kernels.read(content)
            seconds.append(time.perf_counter() - start)
        return content.nbytes / min(seconds)

    read()  # map the pages
    return read


def bytes_per_token(path: Path) -> int:
    """Packed weights that one token reads: all matrices except the embeddings, and only the routed experts."""
    with GGUFFile.open(path) as file:
        spec = spec_from_metadata(file.metadata, file)
        share = spec.moe.n_experts_per_token / spec.moe.n_routed_experts if spec.moe else 1.0
        unread = () if spec.tied_embeddings else ("token_embd.weight",)
        sizes = {name: info.nbytes for name, info in file.tensors.items() if name not in unread}
    return int(sum(size * (share if is_routed_expert(name) else 1.0) for name, size in sizes.items()))


def measure(path: Path, n_threads: int, n_pairs: int, context: int) -> dict[str, Any]:
    """All results for one file."""
    workers = []
    for backend in ("repacked", "plain"):
        try:
            workers.append(Worker(backend, path, n_threads))
        except RivalDiedError as error:
            log(f"llama.cpp left out: {error}")
    if not workers:
        raise SystemExit("llama.cpp cannot run this file on this machine: nothing to compare with")
    rivals = [Rival(worker, flash) for worker in workers for flash in (True, False)]
    match = Match(path, Worker("native", path, n_threads), rivals, n_threads, n_pairs, context)
    match.time_first_tokens()
    match.run()
    for worker in (match.native, *workers):
        worker.close()
    return match.results


def log(text: str) -> None:
    """Progress, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def print_table(results: dict[str, Any]) -> None:
    """The ratios, then everything else."""
    print(f"{'work':24} {'sprat, t/s':>12} {'llama.cpp, t/s':>15} {'ratio':>6}   llama.cpp's best")
    for name in (key.removesuffix("_ratio") for key in results if key.endswith("_ratio") and key != "ttft_ratio"):
        ours, theirs = results[f"{name}_tokens_per_second"], results[f"{name}_tokens_per_second_llamacpp"]
        print(f"{name:24} {ours:12.1f} {theirs:15.1f} {results[f'{name}_ratio']:6.2f}   {results[f'{name}_llamacpp']}")
    for name in ("ttft_ratio", *(key for key in results if "share" in key), "routing_entropy", "threads"):
        print(f"{name:40} {results[name]:12.3g}")
    for name in ("read_bandwidth", *(name for name in results if name.startswith("rss_"))):
        print(f"{name:40} {results[name] / 1e6:12.0f} MB{'/s' * (name == 'read_bandwidth')}")


def _written(folder: Path, shape: str, quant: str, n_layers: int | None) -> Path:
    """A GGUF of a preset with random weights, or of the packaged student in int4."""
    if shape == _STUDENT:
        return export(demo.path(), folder / "student", quant="int4").bundle.artifact("gguf")
    path = folder / "shape.gguf"
    write_preset(path, shape, quant, n_layers)
    return path


def _longest_context(path: Path) -> int:
    """The largest depth at which the tests still fit into the model's context."""
    with GGUFFile.open(path) as file:
        return spec_from_metadata(file.metadata, file).max_context - 2 * _PREFILL


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[_STUDENT, *sorted(SHAPES)], default="deepseek-v2-lite")
    parser.add_argument("--quant", default="Q4_0")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--context", type=int, default=4096, help="the large depth, in tokens")
    parser.add_argument("--file", type=Path, help="measure this GGUF instead of one with random weights")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = arguments.file or _written(Path(folder), arguments.shape, arguments.quant, arguments.layers)
        results = measure(path, arguments.threads, arguments.pairs, min(arguments.context, _longest_context(path)))
    if not arguments.json:
        print_table(results)
    print(json.dumps(results))


if __name__ == "__main__":
    _main()
