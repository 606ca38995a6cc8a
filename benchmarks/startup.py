"""Start-up: ``import sprat``, ``sprat --help``, whole answers, and loading a model with a large vocabulary.

    python benchmarks/startup.py [--runs 10] [--json]

Each is timed in new interpreters. ``run`` answers with the packaged student in NumPy and float32, ``bundle`` with the
same student exported in int4. These are compared with ``python -c pass``. The cases alternate, so that the ratios hold
on a busy machine, and run once before they are timed. The interpreter must keep bytecode: where
PYTHONDONTWRITEBYTECODE is set, it is removed, since without bytecode every module is compiled again.

``load`` is from ``Engine.load`` to the first token of a prompt of 64 words, on a file with the tensors, layers and
vocabulary size of DeepSeek-V2-Lite, whose matrices are so narrow that reading and computing them takes no time.

The last line is JSON: medians of wall time (``*_ms``), the least of wall (``*_least_ms``) and CPU time (``*_cpu_ms``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sprat import demo, export
from sprat.export.gguf.random_weights import write_random
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.presets import preset_config
from sprat.runtime.tokenizer.byte_alphabet import byte_alphabet

_LOAD = """
import sys, time
from sprat import Engine
start, cpu = time.perf_counter(), time.process_time()
with Engine.load(sys.argv[1], memory="4GB") as engine:
    next(engine.generate("What is 17 + 25? " * 8, max_tokens=1))
    print(time.perf_counter() - start, time.process_time() - cpu)
"""
CASES = {
    "python": ["-c", "pass"],
    "import": ["-c", "import sprat"],
    "help": ["-m", "sprat", "--help"],
    "run": ["-m", "sprat", "run", "demo", "What is 17 + 25?"],
    "bundle": ["-m", "sprat", "run", "student", "What is 17 + 25?"],
}
_OWN = ("import", "help", "run", "bundle")
_PRESET, _VOCABULARY = "deepseek-v2-lite", 102_400
_NARROW = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "moe_intermediate_size": 32,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 32,
    "v_head_dim": 32,
}
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def whole(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one new interpreter in ``folder``."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=_ENVIRONMENT, capture_output=True, cwd=folder)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def loading(path: Path) -> tuple[float, float]:
    """Wall and CPU seconds from ``Engine.load`` to the first token."""
    command = [sys.executable, "-c", _LOAD, str(path)]
    output = subprocess.run(command, check=True, env=_ENVIRONMENT, capture_output=True, text=True).stdout
    wall, cpu = map(float, output.split())
    return wall, cpu


def write_model(path: Path) -> None:
    """A file of the shape that ``load`` reads."""
    spec = spec_from_config({**preset_config(_PRESET), **_NARROW})
    write_random(path, spec, _PRESET, tokenizer=_tokenizer())


def _tokenizer() -> dict[str, Any]:
    """Byte-level BPE as large as DeepSeek's: pairs of tokens, the earliest first, after the bytes and the end token."""
    letters = list(byte_alphabet())
    pairs = itertools.islice(itertools.product(letters, repeat=2), 30_000)
    merges = [f"{left} {right}" for left, right in pairs]
    known = {merge.replace(" ", "") for merge in merges}
    for first, last in itertools.product(sorted(known), letters):
        if len(merges) == _VOCABULARY - len(letters) - 1:
            break
        if (text := first + last) not in known:
            known.add(text)
            merges.append(f"{first} {last}")
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges), "<｜end▁of▁sentence｜>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "deepseek-llm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*([1] * (len(tokens) - 1)), 3],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }


def measure(n_runs: int, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of all cases, which take turns."""
    export(demo.path(), folder / "student", quant="int4", quality="none")
    write_model(folder / "narrow.gguf")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (*CASES, "load")}
    for turn in range(n_runs + 1):
        for name, times in found.items():
            once = loading(folder / "narrow.gguf") if name == "load" else whole(CASES[name], folder)
            if turn:
                times.append(once)
    return found


def summary(found: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """The JSON: those of a whole interpreter beyond ``python -c pass``, and their ratio to it."""
    walls = {name: [wall for wall, _ in times] for name, times in found.items()}
    median = {name: statistics.median(times) for name, times in walls.items()}
    results: dict[str, float] = {"runs": len(walls["run"])}
    for name, times in found.items():
        results[f"{name}_ms"] = round(1000 * (median[name] - (median["python"] if name in _OWN else 0)), 1)
        results[f"{name}_least_ms"] = round(1000 * min(walls[name]), 1)
        results[f"{name}_cpu_ms"] = round(1000 * min(cpu for _, cpu in times), 1)
    return results | {f"{name}_ratio": round(median[name] / median["python"], 2) for name in _OWN}


def main() -> None:
    """Run the cases in turn and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.runs, Path(folder))
    results = summary(found)
    if not options.json:
        for name in found:
            wall, least, cpu = (results[f"{name}_{kind}"] for kind in ("ms", "least_ms", "cpu_ms"))
            print(f"{name:<8} {wall:7.1f} ms   least {least:7.1f} ms   CPU {cpu:7.1f} ms")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
