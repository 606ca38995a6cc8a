"""The packaged student with fewer experts, for home automation alone: what it keeps of that task.

Calibrated with home problems of its training split. For each share: KL divergence of the pruned model from the student
on text of that task that the choice did not read, and the score of the int4 file on held-out problems.

    python benchmarks/pruning.py --shares 0.125,0.25,0.5 --json
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import sprat.demo
from sprat.app.evaluate import evaluate
from sprat.demo.tasks import Problem, Split, home
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import Bundle


def training_text(file: Path, n: int) -> Path:
    """``n`` home problems and their answers, as the model sees them."""
    problems = itertools.islice(home.problems(Split.TRAIN, seed=5), n)
    file.write_text("\n".join(map(_as_text, problems)))
    return file


def _as_text(problem: Problem) -> str:
    thinking = f"{problem.reasoning}\n" if problem.reasoning else ""
    reply = f"<think>\n{thinking}</think>\n\n{problem.answer}<｜end▁of▁sentence｜>"
    return f"<｜User｜>{problem.prompt}<｜Assistant｜>{reply}"


def scored(bundle: Bundle, n: int) -> dict[str, float]:
    """Bytes, the cost of pruning, and the score of the file on the task."""
    path = bundle.artifact("gguf")
    with Engine.load(path) as engine:
        found = evaluate(engine, "home", n=n)
    pruning = bundle.manifest.pruning
    cost = {"kld": pruning.kld, "kld_se": pruning.kld_error, "same_top": pruning.same_top} if pruning else {}
    low, high = found.interval
    return {"bytes": path.stat().st_size, **cost, "home": found.exact_match, "home_low": low, "home_high": high}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", default="0.125,0.25,0.5", help="comma-separated")
    parser.add_argument("--problems", type=int, default=300, help="training problems to choose the experts by")
    parser.add_argument("--questions", type=int, default=500, help="held-out problems to score")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = training_text(folder / "home.txt", options.problems)
        for share in (None, *map(float, options.shares.split(","))):
            keywords = {} if share is None else {"prune_experts": share, "calibration": [text]}
            result = export(sprat.demo.path(), folder / str(share), quant="int4", quality="none", **keywords)
            results[str(share or 0)] = scored(result.bundle, options.questions)
            if not options.json:
                print(share or 0, results[str(share or 0)])
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
