"""sprat's ONNX models compared with onnxruntime-genai, with a loop over all experts, and with the native backend.

Child processes take turns. Before timing, each runs the timed tokens twice, so that mapped weights are in memory. Every
value is the median of the pairs, measured on this machine. The last line is JSON (``--json`` prints nothing else).

1. SmolLM2 in int4: decode speed of sprat's ONNX model in the onnx backend / of the model that onnxruntime-genai's
   builder makes of the same weights in onnxruntime-genai (``smollm2_decode_ratio_vs_genai``). ``--builder`` is a Python
   with onnxruntime-genai, torch and transformers.
2. DeepSeek-V2-Lite with ``--layers`` layers of random weights and a memory limit of ``--budget`` times the file, by
   default in the low-memory form: decode speed / speed with every expert computed (``sparse_vs_dense_decode_ratio``),
   speed at depth 2048 / at depth 8 (``context_2048_share``), and peak memory of loading and running 2048 tokens / size
   of the model's files (``peak_over_file``).
3. The same without a memory limit (``fast_...``), and the low-memory form / every expert computed without the limit
   (``sparse_vs_fast_dense_decode_ratio``). ``smollm2_peak_over_file`` is at depth 8: its KV cache of 2048 tokens is
   larger than its files.

    python benchmarks/onnx.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf --builder venv/bin/python --json
"""

# ruff: noqa: E402 (sys.path must be set before the imports)
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Replaces this file's folder, in which `import onnx` would find this file.
sys.path[0] = str(Path(__file__).parent / "onnx_rivals")

from dense_loop import write_dense_loop
from hf_folder import write_hf_folder
from worker import Worker

from sprat.export.gguf.random_weights import write_preset
from sprat.export.pipeline import export
from sprat.runtime.files.bundle import Bundle

_SHORT, _LONG = 8, 2048  # depths
_DECODED = 16
_WARM_UPS = 2


def smollm2(gguf: Path, builder: str | None, folder: Path, settings: argparse.Namespace) -> dict[str, float]:
    """Part 1, and the peak memory of SmolLM2."""
    source = folder / "SmolLM2-135M-Instruct"
    if not source.exists():
        write_hf_folder(gguf, source)
    bundle = _export(source, folder / "smollm2", settings, formats=("gguf", "onnx"))
    results: dict[str, float] = {}
    with _worker("onnx", bundle.artifact("onnx"), settings) as ours:
        with _worker("native", bundle.artifact("gguf"), settings) as native:
            results |= _compare("smollm2_decode_ratio_vs_native", ours, native, settings.pairs)
        results["smollm2_peak_over_file"] = ours.peak_bytes() / _model_bytes(bundle.artifact("onnx"))
        if builder:
            built = _build(builder, source, folder / "genai")
            with _worker("genai", built, settings) as genai:
                results |= _compare("smollm2_decode_ratio_vs_genai", ours, genai, settings.pairs)
                long = _compare("smollm2_decode_2048_ratio_vs_genai", ours, genai, settings.pairs, past=_LONG)
                results |= {name: value for name, value in long.items() if name.endswith("genai")}
            results["smollm2_file_bytes_genai"] = _model_bytes(built / "model.onnx")
        results["smollm2_context_2048_share"] = _share(ours, settings.pairs)
        results["smollm2_file_bytes"] = _model_bytes(bundle.artifact("onnx"))
    return results


def v2_lite(folder: Path, settings: argparse.Namespace) -> dict[str, float]:
    """Parts 2 and 3."""
    source = settings.shape_file or folder / "v2-lite.gguf"
    if not source.exists():
        write_preset(source, "deepseek-v2-lite", "Q4_0", settings.layers)
    sparse = _export(source, folder / "v2-lite", settings, formats=("onnx",)).artifact("onnx")
    qmoe = sparse
    if settings.ort != "1.31":  # the loops over all experts are made of QMoE
        new = argparse.Namespace(**{**vars(settings), "ort": "1.31"})
        qmoe = _export(source, folder / "v2-lite-qmoe", new, formats=("onnx",)).artifact("onnx")
    fast_dense, float_dense = write_dense_loop(qmoe), write_dense_loop(qmoe, float_experts=True)
    n_bytes = _model_bytes(sparse)
    budget = int(settings.budget * n_bytes)
    results: dict[str, float] = {"v2_lite_file_bytes": n_bytes, "budget_over_file": settings.budget}
    results |= _memory_and_share("", sparse, settings, budget) | _memory_and_share("fast_", sparse, settings, None)
    with _worker("onnx", sparse, settings, budget) as ours:
        with _worker("onnx", float_dense if ours.uses_low_memory() else fast_dense, settings) as dense:
            results |= _compare("sparse_vs_dense_decode_ratio", ours, dense, settings.pairs)
        with _worker("onnx", fast_dense, settings) as dense:
            results |= _compare("sparse_vs_fast_dense_decode_ratio", ours, dense, settings.pairs)
            with _worker("onnx", sparse, settings) as fast:
                results |= _compare("fast_sparse_vs_dense_decode_ratio", fast, dense, settings.pairs)
    return results


def _memory_and_share(
    prefix: str, path: Path, settings: argparse.Namespace, memory_bytes: int | None
) -> dict[str, float]:
    """Peak memory of a sequence of 2048 tokens, and its speed relative to depth 8."""
    with _worker("onnx", path, settings, memory_bytes) as ours:
        ours.decode(_LONG, _DECODED)
        peak = ours.peak_bytes() / _model_bytes(path)
        share = _share(ours, settings.pairs)
    return {f"{prefix}peak_over_file": peak, f"{prefix}context_2048_share": share}


def _worker(engine: str, path: Path, settings: argparse.Namespace, memory_bytes: int | None = None) -> Worker:
    return Worker(engine, path, settings.threads, memory_bytes)


def _export(source: Path, out: Path, settings: argparse.Namespace, formats: tuple[str, ...]) -> Bundle:
    return export(
        source,
        out,
        quant="int4",
        formats=formats,
        block_size=settings.block_size,
        accuracy_level=settings.accuracy_level,
        ort=settings.ort,
    ).bundle


def _build(python: str, source: Path, out: Path) -> Path:
    """The output folder of onnxruntime-genai's builder for ``source``, run offline; an existing one is reused."""
    if (out / "genai_config.json").exists():
        return out
    command = [python, "-m", "onnxruntime_genai.models.builder", "-m", str(source), "-o", str(out)]
    command += ["-p", "int4", "-e", "cpu", "-c", str(out.with_name("builder-cache"))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return out


def _compare(name: str, ours: Worker, theirs: Worker, n_pairs: int, past: int = _SHORT) -> dict[str, float]:
    """Ratio of seconds per token, theirs / ours; and both speeds."""
    for worker in (ours, theirs):
        _warm_up(worker, past)
    pairs = [(ours.decode(past, _DECODED), theirs.decode(past, _DECODED)) for _ in range(n_pairs)]
    return {
        name: statistics.median(other / own for own, other in pairs),
        f"{name}:ours_tokens_per_second": 1 / statistics.median(own for own, _ in pairs),
        f"{name}:theirs_tokens_per_second": 1 / statistics.median(other for _, other in pairs),
    }


def _share(ours: Worker, n_pairs: int) -> float:
    """Decode speed at depth 2048 / at depth 8."""
    for past in (_SHORT, _LONG):
        _warm_up(ours, past)
    return statistics.median(ours.decode(_SHORT, _DECODED) / ours.decode(_LONG, _DECODED) for _ in range(n_pairs))


def _warm_up(worker: Worker, past: int) -> None:
    for _ in range(_WARM_UPS):
        worker.decode(past, _DECODED)


def _model_bytes(path: Path) -> int:
    """Size of the graph and its weights."""
    return path.stat().st_size + path.with_name(path.name + ".data").stat().st_size


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="SmolLM2-135M-Instruct; without it only parts 2 and 3 run")
    parser.add_argument("--builder", help="a Python with onnxruntime-genai, torch and transformers")
    parser.add_argument("--layers", type=int, default=6, help="number of V2-Lite's 27 layers")
    parser.add_argument("--shape-file", type=Path, help="an existing GGUF of DeepSeek-V2-Lite with random weights")
    parser.add_argument("--block-size", type=int, choices=(32, 64, 128), default=32)
    parser.add_argument("--accuracy-level", type=int, choices=(0, 4), default=4)
    parser.add_argument("--ort", default="1.31", help="the onnxruntime that the graphs are for; QMoE from 1.31 on")
    parser.add_argument(
        "--budget",
        type=float,
        default=1.35,
        help="memory limit in times of the file; a small one selects the low-memory form",
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = settings.folder or Path(scratch)
        results: dict[str, Any] = {"basis": "measured", "threads": settings.threads, "layers": settings.layers}
        parts: list[Callable[[], dict[str, float]]] = [lambda: v2_lite(folder, settings)]
        if settings.gguf:
            parts.insert(0, lambda: smollm2(settings.gguf, settings.builder, folder, settings))
        for part in parts:
            results |= part()
            if not settings.json:
                print("\n".join(f"{name:<60} {value}" for name, value in results.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    _main()
