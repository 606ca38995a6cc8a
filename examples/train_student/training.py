"""The training loop: Muon for matrices, AdamW for the rest, linear decay, checkpoints to resume from."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from batches import NO_TARGET, TASKS, Batch
from muon import Muon
from phases import PHASES, phase_at
from student import Student
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

__all__ = ["Progress", "TrainingConfig", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Learning rates and weights of losses; `phases.py` has the number of steps."""

    muon_lr: float = 0.02
    muon_decay: float = 0.5
    """Weight decay of matrices: 1 % per step at the peak learning rate."""
    adam_lr: float = 3e-3
    warmup: int = 40
    """Steps of linear warm-up."""
    balance: float = 0.01
    """Weight of the auxiliary load balancing loss."""
    save_every: int = 100

    def rate(self, step: int) -> float:
        """Learning rate at `step`, as a share of the peak."""
        phase, within = phase_at(step)
        falling = (1 - within / phase.steps) / phase.decay
        return min(1.0, (step + 1) / self.warmup, phase.rate * min(1.0, falling))


@dataclass(frozen=True, slots=True)
class Progress:
    """The result of one step: mean loss of answer tokens per task (nan for a task without any), and time."""

    step: int
    losses: tuple[float, ...]
    balance: float
    busiest: float
    """Load of the busiest expert in the worst layer; 1 is a uniform load."""
    seconds: float


class _Optimizers:
    """Both optimizers, with one schedule."""

    def __init__(self, student: Student, config: TrainingConfig) -> None:
        named = dict(student.named_parameters())
        by_adam = {
            name
            for name, weight in named.items()
            if weight.ndim < 2 or "embed" in name or "lm_head" in name or "router" in name
        }
        matrices = [weight for name, weight in named.items() if name not in by_adam]
        self._muon = Muon(matrices, lr=config.muon_lr, weight_decay=config.muon_decay)
        self._adam = torch.optim.AdamW(
            [named[name] for name in sorted(by_adam)],
            lr=config.adam_lr,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        )
        self._rates = ((self._muon, config.muon_lr), (self._adam, config.adam_lr))

    def step(self, rate: float) -> None:
        for optimizer, highest in self._rates:
            for group in optimizer.param_groups:
                group["lr"] = highest * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, object]]:
        return [optimizer.state_dict() for optimizer, _ in self._rates]

    def restore(self, states: list[dict[str, object]]) -> None:
        for (optimizer, _), state in zip(self._rates, states, strict=True):
            optimizer.load_state_dict(state)


def train(
    student: Student,
    batch_of: Callable[[int], Batch],
    config: TrainingConfig,
    folder: Path,
    report: Callable[[Progress], None],
) -> None:
    """Train in place through `PHASES`, resuming from ``folder/checkpoint.pt`` if it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    optimizers = _Optimizers(student, config)
    n_steps = sum(phase.steps for phase in PHASES)
    start = _restore(student, optimizers, checkpoint) if checkpoint.exists() else 0
    student.train()
    with (folder / "losses.csv").open("a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        for step in range(start, n_steps):
            progress = _step(student, optimizers, batch_of(step), config, step)
            rows.writerow(
                [
                    step,
                    *(f"{loss:.5f}" for loss in progress.losses),
                    f"{progress.balance:.4f}",
                    f"{progress.seconds:.3f}",
                ]
            )
            report(progress)
            if (step + 1) % config.save_every == 0 or step + 1 == n_steps:
                file.flush()
                _save(student, optimizers, checkpoint, step + 1)


def _step(student: Student, optimizers: _Optimizers, batch: Batch, config: TrainingConfig, step: int) -> Progress:
    started = time.monotonic()
    logits = student(batch.tokens, batch.positions, batch.documents).flatten(0, 1)
    targets, tasks = batch.targets.flatten(), batch.tasks.flatten()
    losses = F.cross_entropy(logits.float(), targets, ignore_index=NO_TARGET, reduction="none")
    moe_layers = student.moe_layers()
    balance = torch.stack([layer.balance_loss for layer in moe_layers]).mean()
    (losses.sum() / (targets != NO_TARGET).sum() + config.balance * balance).backward()
    optimizers.step(config.rate(step))
    busiest = max(float(layer.load.max()) * len(layer.load) for layer in moe_layers)
    per_task = tuple(_mean(losses.detach(), tasks == task) for task in range(len(TASKS)))
    return Progress(step, per_task, float(balance.detach()), busiest, time.monotonic() - started)


def _mean(values: Tensor, mask: Tensor) -> float:
    return float(values[mask].mean())


def _save(student: Student, optimizers: _Optimizers, path: Path, step: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"step": step, "student": student.state_dict(), "optimizers": optimizers.state()}, partial)
    partial.rename(path)


def _restore(student: Student, optimizers: _Optimizers, path: Path) -> int:
    saved = torch.load(path, weights_only=True)
    student.load_state_dict(saved["student"])
    optimizers.restore(saved["optimizers"])
    return int(saved["step"])
