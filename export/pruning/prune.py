"""Prune a checkpoint for a text, and measure what that costs on text that the choice did not read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.arrays import I32Array
from sprat.export.calibration import calibration_and_evaluation, calibration_sequences
from sprat.export.pruning.contributions import expert_contributions
from sprat.export.pruning.selection import best_experts, checked_share
from sprat.export.quality.measuring.layer_pass import LayerPass
from sprat.export.quality.measuring.score import score
from sprat.export.source.checkpoint import Checkpoint
from sprat.progress import Progress, ReportProgress
from sprat.runtime.files.bundle import PruningReport

__all__ = ["Pruned", "prune", "pruning_digest"]


@dataclass(frozen=True, slots=True)
class Pruned:
    """A checkpoint with fewer experts, and what is known about it."""

    checkpoint: Checkpoint
    report: PruningReport


def prune(
    checkpoint: Checkpoint,
    share: float,
    files: Sequence[Path],
    tokenizer: Mapping[str, Any],
    progress: ReportProgress,
) -> Pruned:
    """Remove ``share`` of each layer's routed experts: those that contribute least to a text.

    Args:
        checkpoint: the source, with all its experts.
        share: between 0 and 1.
        files: the text; the packaged one if there is none.
        tokenizer: the ``tokenizer.*`` keys.
        progress: called after each layer; unit: layers.

    Raises:
        InputError: the model has no experts, ``share`` is out of range, or the text is too short.
    """
    moe = checked_share(checkpoint, share)
    sequences, held_out = _texts(files, tokenizer)
    contributions = expert_contributions(checkpoint, sequences, progress)
    experts = best_experts(moe, share, contributions)
    pruned = checkpoint.with_experts(experts)
    kept = sum(float(contributions[layer][list(ids)].sum()) for layer, ids in experts.items())
    total = sum(float(values.sum()) for values in contributions.values())
    progress(Progress(0, 1, "comparing"))
    # The reference routes over the rows that a router has, so the source's spec serves the pruned layers, too.
    (found,) = score(LayerPass(checkpoint.spec, checkpoint, held_out), {"pruned": pruned}).values()
    report = PruningReport(
        digest=_digest(checkpoint, share, sequences),
        calibration_tokens=sum(map(len, sequences)),
        n_experts=moe.n_routed_experts,
        experts={str(layer): ids for layer, ids in experts.items()},
        n_weights=_n_weights(pruned),
        n_weights_before=_n_weights(checkpoint),
        contribution=kept / total if total else 0.0,
        n_scored=len(found.kld),
        kld=found.mean,
        kld_error=found.error,
        same_top=float(found.same_top.mean()),
    )
    return Pruned(pruned, report)


def pruning_digest(checkpoint: Checkpoint, share: float, files: Sequence[Path], tokenizer: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides which experts stay."""
    return _digest(checkpoint, share, _texts(files, tokenizer)[0])


def _texts(files: Sequence[Path], tokenizer: Mapping[str, Any]) -> tuple[Sequence[I32Array], Sequence[I32Array]]:
    return calibration_and_evaluation(calibration_sequences(tokenizer, files), tokenizer, is_own=bool(files))


def _digest(checkpoint: Checkpoint, share: float, sequences: Sequence[I32Array]) -> str:
    digest = hashlib.sha256(f"{checkpoint.hash()} {share!r}".encode())
    for sequence in sequences:
        digest.update(f" {len(sequence)} ".encode() + sequence.astype("<i4").tobytes())
    return digest.hexdigest()


def _n_weights(checkpoint: Checkpoint) -> int:
    return sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
