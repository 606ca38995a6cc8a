"""Speed and memory of the export of a DeepSeek-V2-Lite checkpoint to int4, compared with llama.cpp.

    python benchmarks/export_speed.py --layers 4 [--pairs 3] [--json]

The checkpoint is written to a temporary folder: V2-Lite's dimensions, ``--layers`` of its 27 layers, random BF16
weights, a tiny tokenizer. Both sides run in child processes, alternately, and the order changes from pair to pair.

* sprat: ``export(source, out, quant="int4")``, with the check for NaN and Inf, the digests of source and artifact, and
  fsync.
* llama.cpp: conversion to an F16 GGUF, then ``llama_model_quantize`` to Q4_0. The conversion stands in for
  ``convert_hf_to_gguf``: NumPy converts BF16 to float32 to F16, as that script and the package gguf do, but without
  importing torch, without checks, digests or fsync. So it is faster than what a user would run.

Peak memory is the child's peak resident memory (VmHWM), mapped files included.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
SHARD_BYTES = 4 << 30
NOISE_WEIGHTS = 1 << 24
Q4_0_FILE = 2  # LLAMA_FTYPE_MOSTLY_Q4_0

V2_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "hidden_act": "silu",
    "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@dataclass(frozen=True)
class Run:
    """One run of one side."""

    seconds: float
    peak_rss_bytes: int
    output_bytes: int


def main() -> None:
    """Write the checkpoint, run both sides, print a table and one line of JSON."""
    options = parse_options()
    with tempfile.TemporaryDirectory(prefix="export-speed-", dir=options.folder) as name:
        folder = Path(name)
        source = make_checkpoint(folder / f"V2-Lite-{options.layers}-layers", options.layers)
        source_bytes = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        ours, theirs = measure(source, folder, options.pairs, options.quant, compare=options.compare)
    report(options.layers, source_bytes, ours, theirs, as_json=options.json)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=4, help="number of V2-Lite's 27 layers; the first is dense")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side")
    parser.add_argument("--quant", default="int4", help="quantization of sprat; llama.cpp's is always Q4_0")
    parser.add_argument("--folder", type=Path, help="working folder; needs 2.3 times the source's size")
    parser.add_argument(
        "--no-compare", dest="compare", action="store_false", help="run sprat alone; needs 1.3 times the source's size"
    )
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    parser.add_argument("--run", nargs=3, metavar=("SIDE", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        side, source, out = options.run
        {"sprat": run_sprat, "llamacpp": run_llamacpp}[side](Path(source), Path(out), options.quant)
        sys.exit()
    return options


def make_checkpoint(folder: Path, n_layers: int) -> Path:
    """A checkpoint of random BF16 weights: shards, index, config, tokenizer."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from tiny_checkpoint import shapes, write_tokenizer

    folder.mkdir()
    config = V2_LITE | {"num_hidden_layers": n_layers}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, "deepseek2", 512)
    shards = list(fill_shards(shapes(config)))
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_shard(folder / name, shard)
    index = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def fill_shards(tensors: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Tensors in order, grouped into shards."""
    shard: dict[str, tuple[int, ...]] = {}
    for name, shape in tensors.items():
        if shard and sum(map(math.prod, [*shard.values(), shape])) * 2 > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def write_shard(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """One buffer of noise, repeated: quantizers do the same work as on independent values."""
    noise = np.random.default_rng(0).standard_normal(NOISE_WEIGHTS, np.float32) * 0.02
    noise_bytes = memoryview((noise.view(np.uint32) >> 16).astype(np.uint16)).cast("B")
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin in range(0, end, len(noise_bytes)):
            file.write(noise_bytes[: end - begin])


def measure(source: Path, folder: Path, n_pairs: int, quant: str, *, compare: bool) -> tuple[list[Run], list[Run]]:
    """Run both sides ``n_pairs`` times; the order changes from pair to pair."""
    runs: dict[str, list[Run]] = {"sprat": [], "llamacpp": []}
    sides = ["sprat", "llamacpp"] if compare else ["sprat"]
    for _ in range(n_pairs):
        for side in sides:
            runs[side].append(run_child(side, source, folder / "out", quant))
        sides.reverse()
    return runs["sprat"], runs["llamacpp"]


def run_child(side: str, source: Path, out: Path, quant: str) -> Run:
    """Time one side in a child process, start-up included; its output is measured and deleted."""
    os.sync()  # write back dirty pages of the previous run first
    command = [sys.executable, __file__, "--quant", quant, "--run", side, str(source), str(out)]
    began = time.perf_counter()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - began
    output_bytes = max(path.stat().st_size for path in out.iterdir())
    shutil.rmtree(out)
    return Run(seconds, int(ended.stdout.split()[-1]), output_bytes)


def run_sprat(source: Path, out: Path, quant: str) -> None:
    """In the child: export; prints the peak resident memory."""
    from sprat.export.pipeline import export

    export(source, out, quant=quant)
    print(peak_rss_bytes())


def run_llamacpp(source: Path, out: Path, _quant: str) -> None:
    """In the child: convert to F16, then run llama.cpp's quantizer; prints the peak resident memory."""
    import llama_cpp

    out.mkdir()
    f16 = out / "f16.gguf"
    convert_to_f16(source, f16)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = Q4_0_FILE
    parameters.nthread = os.cpu_count() or 1
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    failed = llama_cpp.llama_model_quantize(bytes(f16), bytes(out / "quantized.gguf"), ctypes.byref(parameters))
    f16.unlink()
    if failed:
        sys.exit("llama_model_quantize failed")
    print(peak_rss_bytes())


def convert_to_f16(source: Path, out: Path) -> None:
    """The header that sprat would write for F16, and every tensor through NumPy, one at a time."""
    from sprat.export.gguf.artifact import gguf_artifact
    from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
    from sprat.export.source.checkpoint import Checkpoint
    from sprat.export.write.naming import ModelName
    from sprat.quant.recipe import Recipe

    checkpoint = Checkpoint.open(source)
    name = ModelName(name="V2 Lite", base_name="V2-Lite", size_label="64x1.5B")
    layout = gguf_artifact(
        checkpoint, Recipe.named("f16"), name=name, tokenizer=tokenizer_metadata(source), align=32
    ).layout
    with out.open("wb") as file:
        file.write(layout.header)
        for placed in layout.tensors:
            planned = placed.tensor
            for chunk in checkpoint.tensors[planned.name].chunks():
                f32 = (chunk.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
                file.write((f32.astype(np.float16) if planned.format.name == "F16" else f32).data)
            file.write(placed.padding)


def peak_rss_bytes() -> int:
    """Peak resident memory of this process, file pages included."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux prints VmHWM"
    return int(found[1]) * 1024


def report(layers: int, source_bytes: int, ours: list[Run], theirs: list[Run], *, as_json: bool) -> None:
    """Print a table unless ``as_json``, then one line of JSON."""
    ratios = [their.seconds / our.seconds for our, their in zip(ours, theirs, strict=False)]
    seconds = statistics.median(run.seconds for run in ours)
    if not as_json:
        print(f"{layers} layers of DeepSeek-V2-Lite, {source_bytes / 1e9:.2f} GB of BF16\n")
        print(f"{'':<24}{'seconds':>9}{'GB/s read':>11}{'peak RSS':>11}{'output':>11}")
        for side, runs in (("sprat", ours), ("llama.cpp, two steps", theirs)):
            for run in runs:
                print(
                    f"{side:<24}{run.seconds:>9.1f}{source_bytes / run.seconds / 1e9:>11.2f}"
                    f"{run.peak_rss_bytes / 1e9:>8.2f} GB{run.output_bytes / 1e9:>8.2f} GB"
                )
        print("\nspeedup, pair by pair:", ", ".join(f"{ratio:.2f}" for ratio in ratios) or "not compared")
    result = {
        "layers": layers,
        "seconds": round(seconds, 2),
        "source_bytes": source_bytes,
        "bytes_per_second": round(source_bytes / seconds),
        "output_bytes": ours[0].output_bytes,
        "peak_rss_bytes": max(run.peak_rss_bytes for run in ours),
        "llamacpp_seconds": round(statistics.median(run.seconds for run in theirs), 2) if theirs else None,
        "llamacpp_peak_rss_bytes": max((run.peak_rss_bytes for run in theirs), default=None),
        "ratio_vs_llamacpp": round(statistics.median(ratios), 3) if ratios else None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
