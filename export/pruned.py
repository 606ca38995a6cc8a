"""A prepared export with fewer routed experts, by :mod:`sprat.export.pruning`."""

from __future__ import annotations

from dataclasses import replace

from sprat.export.options import ExportOptions
from sprat.export.prepare import PreparedExport, lay_out
from sprat.export.pruning.prune import prune, pruning_digest
from sprat.export.quality.options import text_files
from sprat.progress import ReportProgress

__all__ = ["prepared_pruning_digest", "prune_prepared"]


def prune_prepared(prepared: PreparedExport, options: ExportOptions, progress: ReportProgress) -> PreparedExport:
    """Choose the experts that stay, and lay the files out with their weights.

    Raises:
        InputError: the text is too short, or cannot be read.
    """
    whole, share = prepared.checkpoint.whole, options.prune_experts
    assert whole is not None, "prepare() leaves experts out"
    assert share is not None, "only called with a share"
    whole.verify_complete(progress)
    found = prune(whole, share, text_files(options.calibration), prepared.tokenizer, progress)
    artifacts = lay_out(found.checkpoint, prepared.recipe, prepared.tokenizer, options)
    return replace(prepared, checkpoint=found.checkpoint, artifacts=artifacts, pruning=found.report)


def prepared_pruning_digest(prepared: PreparedExport, options: ExportOptions) -> str:
    """SHA-256 of everything that decides which experts stay; empty if all do."""
    if options.prune_experts is None:
        return ""
    return pruning_digest(
        prepared.checkpoint, options.prune_experts, text_files(options.calibration), prepared.tokenizer
    )
