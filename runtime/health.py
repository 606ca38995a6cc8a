"""Checks of a model without its source: files, hashes, weights, tokenizer, logits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sprat.errors import BackendError, SpratError
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.backends.providers.library import missing_because as onnx_missing_because
from sprat.runtime.chat.check import template_problems
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import Bundle
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.integrity.finite_check import check_finite
from sprat.runtime.files.model_file import bundle_of, model_formats
from sprat.runtime.open_model import OpenModel, open_model
from sprat.runtime.tokenizer.vocabulary import TokenizerModel
from sprat.text import human_bytes

__all__ = ["Finding", "examine", "has_finite_logits"]

_PROMPT = "The quick brown fox"
_CONTEXT = 8  # tokens


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check: its name, whether it passed, and details."""

    what: str
    passed: bool
    detail: str


def examine(path: str | os.PathLike[str], progress: ReportProgress = no_progress) -> tuple[Finding, ...]:
    """Check a bundle or a model file completely; damage becomes a finding and not an error.

    A check that depends on one that failed is left out.

    Args:
        path: a bundle, a GGUF or an ONNX model; of a file that a manifest lists, the whole bundle's hashes.
        progress: of the hashes, in bytes.
    """
    return tuple(_findings(Path(path), progress))


def has_finite_logits(engine: Engine) -> bool:
    """Whether the logits of a prefill and a decode are finite, for token ids from the whole vocabulary."""
    n, capacity = engine.backend.vocab_size, min(_CONTEXT, engine.context)
    prompt = [0, n // 3, n // 2, n - 1][: max(1, capacity - 1)]
    passes = [prompt, [n // 4]] if capacity > len(prompt) else [prompt]
    stream = engine.backend.new_stream(capacity)
    try:
        return all(np.isfinite(stream.forward(tokens)).all() for tokens in passes)
    finally:
        stream.close()


def _findings(path: Path, progress: ReportProgress) -> Iterator[Finding]:
    bundle: Bundle | None = None

    def sizes() -> str:
        nonlocal bundle
        bundle = bundle_of(path)
        if bundle is None:
            return "no manifest lists this file: there are no sizes and hashes to compare"
        total = sum(file.size_bytes for file in bundle.manifest.files)
        return f"files: {len(bundle.manifest.files)}, {human_bytes(total)}"

    yield (found := _finding("manifest and sizes", sizes))
    if not found.passed:
        return
    if bundle is not None:
        checked = bundle
        yield _finding("hashes", lambda: "; ".join(("all as in the manifest", *checked.check(progress))))
    for format in model_formats(path):
        yield from _model_findings(path, format)


def _model_findings(path: Path, format: str) -> Iterator[Finding]:
    models: list[OpenModel] = []

    def header() -> str:
        model = open_model(path, "onnx" if format == "onnx" else "auto")
        models.append(model)
        return f"{model.spec.architecture}, {model.spec.n_layers} layers, {len(model.file.tensors)} tensors"

    yield _finding(f"{format} header", header)
    for model in models:
        if isinstance(model.file, GGUFFile):
            yield _finding(f"{format} weights", partial(_weights, model.file))
        yield _finding(f"{format} tokenizer", partial(_tokenizer, model))
        yield _finding(f"{format} chat template", partial(_template, model))
        yield _finding(f"{format} logits", partial(_logits, path, format))


def _weights(file: GGUFFile) -> str:
    check_finite(file, every=True)
    return "all are finite"


def _tokenizer(model: OpenModel) -> str:
    tokenizer = model.tokenizer()
    if tokenizer.vocabulary.model is TokenizerModel.NONE:
        return "none: the model takes token ids"
    tokens = tokenizer.encode(_PROMPT)
    return f"{model.spec.vocab_size:,} tokens; {_PROMPT!r} is {len(tokens)} of them"


def _template(model: OpenModel) -> str:
    problems = template_problems(model.template())
    return "; ".join(problems) or "renders every kind of conversation"


def _logits(path: Path, format: str) -> str:
    if format == "onnx" and (why := onnx_missing_because()):
        return f"not computed: {why}"
    with Engine.load(path, backend="onnx" if format == "onnx" else "auto", context=_CONTEXT) as engine:
        if not has_finite_logits(engine):
            raise BackendError(f"NaN or Inf on {engine.backend.name}; copy the model again, or export it again")
        return f"finite on {engine.backend.name} in prefill and decode"


def _finding(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, check())
    except SpratError as error:
        return Finding(what, False, str(error))
