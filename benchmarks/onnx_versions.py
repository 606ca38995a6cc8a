"""Versions of onnxruntime that load each ONNX export, with error and speed.

The versions are those of ``tests/support/onnxruntime_versions.txt``, which ``make .venv/.onnxruntimes`` installs; the
models are tiny ones of ``tests/golden``, an MoE and a dense one. A float32 graph is compared with transformers' logits,
a quantized one with the same graph in the newest version: the largest difference, as a share of the largest logit.
Speeds are measured with layers of DeepSeek-V2-Lite's shape (``--layers``; 0 leaves them out): one token after the
other, CPU time of one thread, so that other programs count less. The last line is JSON (``--json``: nothing else).

    python benchmarks/onnx_versions.py --json
"""

# ruff: noqa: E402 (sys.path must be set before the imports)
from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

# Replaces this file's folder, in which `import onnx` would find onnx.py.
sys.path[0] = str(Path(__file__).parents[1] / "tests" / "support")

import numpy as np
from golden_models import GOLDEN
from onnx_models import write
from ort_matrix import VERSIONS, installed, run_in
from safetensors.numpy import load_file

from sprat.export.gguf.random_weights import write_preset
from sprat.export.onnx.ort_version import FAST_QMOE
from sprat.export.source.checkpoint import Checkpoint

_MODELS = {"moe": "deepseek-v2-lite", "dense": "r1-distill-qwen"}
_FORMS: dict[str, dict[str, Any]] = {
    "f32": {"quant": "f32"},
    "int4": {"quant": "int4"},
    "int8": {"quant": "int8"},
    "portable int4": {"quant": "int4", "portable": True},
    "int4 for 1.31": {"quant": "int4", "ort": FAST_QMOE},
}
_CHUNK, _TIMED = 16, 8
_SPEED = ("int4", "int4 for 1.31")


def _exports(folder: Path, layers: int) -> dict[str, tuple[Path, list[int], int]]:
    """Name of an artifact -> its graph, tokens, and how many tokens to time."""
    found = {}
    for kind, model in _MODELS.items():
        tokens = load_file(GOLDEN / model / "expected.safetensors")["tokens"].tolist()
        for form, options in _FORMS.items():
            out = write(folder / f"{kind} {form}", Checkpoint.open(GOLDEN / model), **options)
            found[f"{kind} {form}"] = out / "model.onnx", tokens, 0
    if layers:
        source = folder / "v2-lite.gguf"
        write_preset(source, "deepseek-v2-lite", "Q4_0", layers)
        for form in _SPEED:
            out = write(folder / f"v2-lite {form}", Checkpoint.open(source), **_FORMS[form])
            found[f"v2-lite {form}"] = out / "model.onnx", [*range(_CHUNK)], _TIMED
    return found


def _measure(folder: Path, layers: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Artifact -> version -> whether it loads, its error, and tokens per second."""
    exports = _exports(folder, layers)
    requests = [
        {"model": str(path), "tokens": tokens, "chunk": _CHUNK, "timed": timed, "logits": str(folder / f"{index}.npy")}
        for index, (path, tokens, timed) in enumerate(exports.values())
    ]
    table: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in exports}
    newest: dict[str, Any] = {}
    for version in reversed([version for version in VERSIONS if installed(version)]):
        for name, request, answer in zip(exports, requests, run_in(version, requests), strict=True):
            if "error" in answer:
                table[name][version] = {"loads": False, "why": answer["error"]}
                continue
            logits = np.load(request["logits"])
            expected = _golden(name) if name.endswith(" f32") else newest.setdefault(name, logits)
            error = float(np.abs(logits - expected).max() / np.abs(expected).max())
            table[name][version] = {"loads": True, "error": error}
            if request["timed"]:
                table[name][version]["tokens_per_second"] = request["timed"] / answer["seconds"]
    return table


def _golden(name: str) -> Any:
    return load_file(GOLDEN / _MODELS[name.split(" ", 1)[0]] / "expected.safetensors")["logits"]


def _lowest(table: dict[str, dict[str, dict[str, Any]]], kind: str) -> str | None:
    """The lowest version in which all default and portable exports of a kind of model load."""
    rows = [row for name, row in table.items() if name.startswith(f"{kind} ") and not name.endswith(" for 1.31")]
    return next((v for v in VERSIONS if all(row.get(v, {}).get("loads") for row in rows)), None)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=0, help="layers of V2-Lite's shape for the speeds; 0: none")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    settings = parser.parse_args()
    if not any(map(installed, VERSIONS)):
        raise SystemExit("no version is installed; run make .venv/.onnxruntimes")
    with tempfile.TemporaryDirectory() as scratch:
        table = _measure(Path(scratch), settings.layers)
    if not settings.json:
        for name, row in table.items():
            print(f"{name:<24}" + "".join(f"{version:>12}: {_cell(row[version])}" for version in sorted(row)))
    results = {f"lowest_ok_{kind}": _lowest(table, kind) for kind in _MODELS}
    print(json.dumps({"basis": "measured", **results, "artifacts": table}))


def _cell(cell: dict[str, Any]) -> str:
    if not cell["loads"]:
        return "refused"
    speed = cell.get("tokens_per_second")
    return f"{cell['error']:.1e}" + (f" {speed:.1f}/s" if speed else "")


if __name__ == "__main__":
    _main()
