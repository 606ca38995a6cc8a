"""Compare the logits of an artifact with its source's on the same text.

The text is split into windows, as in ``llama-perplexity --kl-divergence``: each begins with BOS if the model has one,
and only the second half of a window is scored, so that every scored token has context. Source and artifact advance in
chunks of tokens, so that only a chunk's logits are in memory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import numpy as np

from sprat.arrays import I32Array
from sprat.devices.machine import available_bytes
from sprat.errors import InputError
from sprat.export.source.lora import AdapterOption
from sprat.export.texts import evaluation_text
from sprat.export.verify.source_model import open_source
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.quant.quality import Quality, QualityMeter, routing_overlap
from sprat.runtime.backends.protocol import Backend
from sprat.runtime.backends.reference import ReferenceBackend
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import MANIFEST_NAME, Bundle
from sprat.runtime.files.model_file import bundle_of, model_formats
from sprat.runtime.loading.options import LoadKeywords

__all__ = ["Verification", "verify"]

_WINDOW = 512  # tokens, llama-perplexity's default
_MIN_TOKENS = 16  # fewer are too few for a mean
_CHUNK = 64  # tokens whose logits are in memory at once: 33 MB for a vocabulary of 128k


Experts = Mapping[str, tuple[int, ...]]  # MoE layer -> the source's ids of a pruned artifact's experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Result of comparing an artifact with its source.

    Attributes:
        artifact: the artifact.
        source: the source it was exported from.
        quality: backend -> statistics; the base is the source's logits.
        routing: layer -> routing overlap, the mean share of experts that source and artifact both chose; empty unless
            the model is an MoE, and for a pruned one without its bundle, which says what its experts were.
        max_kld: the limit on the mean KL divergence, if any.
        window: tokens per window.
        places: backend -> where it computed; empty unless a GPU was asked for.
    """

    artifact: Path
    source: Path
    quality: Mapping[str, Quality]
    routing: Mapping[int, float]
    max_kld: float | None
    window: int
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the mean KL divergence of every backend is finite and within the limit."""
        limit = np.inf if self.max_kld is None else self.max_kld
        return all(np.isfinite(found.mean_kld) and found.mean_kld <= limit for found in self.quality.values())

    def text(self) -> str:
        """llama-perplexity's three blocks for each backend, then the routing overlap."""
        blocks = [f"backend {self.places.get(name, name)}\n{found.text()}" for name, found in self.quality.items()]
        if self.routing:
            layers = "\n".join(f"layer {layer:>3}: {overlap:7.3%}" for layer, overlap in sorted(self.routing.items()))
            mean = np.mean(list(self.routing.values()))
            blocks.append(f"====== Routing overlap ======\nMean     : {mean:7.3%}\n{layers}")
        return "\n\n".join(blocks)


def verify(
    artifact: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    text: str | None = None,
    backends: Sequence[str] | None = None,
    max_kld: float | None = None,
    max_tokens: int | None = None,
    lora: Sequence[str | os.PathLike[str]] = (),
    progress: ReportProgress = no_progress,
    **load: Unpack[LoadKeywords],
) -> Verification:
    """Compare the logits of an artifact with those of its source.

    Args:
        artifact: a bundle, a GGUF or an ONNX model.
        source: what it was exported from: a checkpoint folder or a GGUF file.
        text: the text to score; by default :func:`sprat.export.texts.evaluation_text`.
        backends: backends that run the artifact. Default for a GGUF: ``reference``, the one that ``Engine.load``
            chooses, and ``llamacpp`` if installed; for an ONNX model: ``onnx``; for a bundle with both: all of them.
        max_kld: the largest mean KL divergence, in nats, that passes.
        max_tokens: score only the first tokens of the text.
        lora: the LoRA adapters that the export merged, as in the export.
        progress: called after each chunk; unit: tokens.
        load: how to load the artifact, as for ``Engine.load``; with ``gpu`` or ``provider``, by default of
            ``backends``, only the one that computes there runs it.

    Raises:
        InputError: artifact or source cannot be read, their vocabularies differ, the text is too short, the limit is
            negative or NaN, or the bundle was made with other adapters.
        BundleError: a file of the bundle differs from the hashes in its manifest.
        BackendError: a backend cannot run the artifact.
    """
    _check_text(text)
    _check_limit(max_kld)
    with contextlib.ExitStack() as stack:
        experts = _checked_experts(artifact)
        adapters = [AdapterOption.parse(os.fspath(text)) for text in lora]
        ignored = _check_source(Path(artifact), adapters)
        base = open_source(source, dense_bytes=available_bytes() // 4, ignore_fields=ignored, adapters=adapters)
        engines = {engine.backend.name: stack.enter_context(engine) for engine in _load(artifact, backends, load)}
        window = min(_WINDOW, base.max_context, *(engine.context for engine in engines.values()))
        comparison = _Comparison(base, {name: engine.backend for name, engine in engines.items()}, window, experts)
        stack.callback(comparison.close)
        first = next(iter(engines.values()))
        windows = _windows(first, text or evaluation_text(), window, max_tokens)
        _read_all(comparison, windows, progress)
    return Verification(
        artifact=Path(artifact),
        source=Path(source),
        quality={name: meter.result() for name, meter in comparison.meters.items()},
        routing=comparison.mean_overlap(),
        max_kld=max_kld,
        window=len(windows[0]),
        places={name: each.backend_choice.text() for name, each in engines.items()} if _on_device(load) else {},
    )


def _read_all(comparison: _Comparison, windows: Sequence[I32Array], progress: ReportProgress) -> None:
    n_read = len(windows[0]) - 1  # a window's last token is predicted, not read
    for number, tokens in enumerate(windows):
        what = f"window {number + 1} of {len(windows)}"
        for n_done in comparison.read(tokens):
            progress(Progress(number * n_read + n_done, len(windows) * n_read, what))


def _check_text(text: str | None) -> None:
    if text is not None and not text.strip():
        raise InputError("the text to score is empty; pass a text of some hundred words, or none for sprat's own")


def _check_limit(max_kld: float | None) -> None:
    """Refuse what no model can pass, before anything is read."""
    if max_kld is not None and not max_kld >= 0:  # NaN compares with nothing
        raise InputError(f"--max-kld {max_kld}: expected 0 or a positive number of nats, such as 0.05")


def _checked_experts(artifact: str | os.PathLike[str]) -> Experts:
    """Compare a bundle's files with its hashes; returns which of the source's experts it has, if it was pruned."""
    if (bundle := bundle_of(artifact)) is None:
        return {}
    bundle.check()
    return bundle.manifest.pruning.experts if bundle.manifest.pruning else {}


def _check_source(artifact: Path, adapters: Sequence[AdapterOption]) -> tuple[str, ...]:
    """Compare ``adapters`` with those that a bundle's manifest names; returns the fields ignored at its export."""
    if not (artifact / MANIFEST_NAME).is_file():
        return ()
    recorded = Bundle.open(artifact).manifest.source
    merged = [(adapter.name, adapter.scale) for adapter in recorded.adapters]
    if merged != [(Path(os.path.realpath(option.folder)).name, option.scale) for option in adapters]:
        wanted = " ".join(f"--lora {name}:{scale:g}" for name, scale in merged) or "no --lora"
        raise InputError(f"{artifact}: verify it with the adapters of its export: {wanted}")
    return recorded.ignored_config_fields


class _Comparison:
    """Streams of the source and of every backend, advanced together."""

    def __init__(self, base: ReferenceBackend, backends: Mapping[str, Backend], window: int, experts: Experts) -> None:
        for name, backend in backends.items():
            if backend.vocab_size != base.vocab_size:
                raise InputError(
                    f"the artifact has a vocabulary of {backend.vocab_size} ({name}), the source of {base.vocab_size}: "
                    "not the same model; pass the source that it was exported from"
                )
        self.meters = {name: QualityMeter() for name in backends}
        self._base_routes, self._routes = _Routes(), _Routes()
        self._experts = experts
        self._overlaps: dict[int, list[float]] = defaultdict(list)
        self._base = base.new_stream(window, self._base_routes.record)
        self._streams = {
            name: backend.new_stream(window, self._routes.record if self._is_routing(base, backend) else None)
            for name, backend in backends.items()
        }

    def _is_routing(self, base: ReferenceBackend, backend: Backend) -> bool:
        """Whether the backend's experts are those of the source, or known to be a part of them."""
        return isinstance(backend, ReferenceBackend) and bool(self._experts or backend.n_experts == base.n_experts)

    def read(self, tokens: I32Array) -> Iterator[int]:
        """Compare one window ``(n,)``; yields the number of tokens read so far."""
        scored_from = len(tokens) // 2
        for stream in (self._base, *self._streams.values()):
            stream.truncate(0)
            stream.forward(tokens[:scored_from].tolist())
        self._compare_routes()
        yield scored_from
        for start in range(scored_from, len(tokens) - 1, _CHUNK):
            chunk = tokens[start : min(start + _CHUNK, len(tokens) - 1)]
            following = tokens[start + 1 : start + 1 + len(chunk)]
            base_logits = self._base.forward_all(chunk.tolist())
            for name, stream in self._streams.items():
                self.meters[name].add(base_logits, stream.forward_all(chunk.tolist()), following)
            self._compare_routes()
            yield start + len(chunk)

    def mean_overlap(self) -> dict[int, float]:
        """Layer -> mean routing overlap over all tokens read."""
        return {layer: float(np.mean(overlaps)) for layer, overlaps in self._overlaps.items()}

    def close(self) -> None:
        """Free all caches."""
        for stream in (self._base, *self._streams.values()):
            stream.close()

    def _compare_routes(self) -> None:
        """Compare the routing that both sides recorded since the last call."""
        base_routes, routes = self._base_routes.take(), self._routes.take()
        for layer in base_routes.keys() & routes.keys():
            ids = self._experts.get(str(layer))
            chosen = np.asarray(ids, np.int32)[routes[layer]] if ids else routes[layer]
            self._overlaps[layer].extend(routing_overlap(base_routes[layer], chosen))


@dataclass(slots=True)
class _Routes:
    """The chosen experts of one pass by layer, ``(n, n_experts_per_token)`` each."""

    _by_layer: dict[int, I32Array] = field(default_factory=dict)

    def record(self, layer: int, experts: I32Array) -> None:
        """Record one layer's experts."""
        self._by_layer[layer] = experts

    def take(self) -> dict[int, I32Array]:
        """Return the recorded experts and reset."""
        taken, self._by_layer = self._by_layer, {}
        return taken


def _windows(engine: Engine, text: str, window: int, max_tokens: int | None) -> list[I32Array]:
    """The text's tokens in full windows, or one shorter window; BOS replaces the first token of each."""
    tokens = np.asarray(engine.tokenizer.encode(text, add_bos=True)[:max_tokens], np.int32)
    if len(tokens) < _MIN_TOKENS:
        raise InputError(f"the text has {len(tokens)} tokens, expected at least {_MIN_TOKENS}; pass a longer text")
    size = min(window, len(tokens))
    windows = [tokens[start : start + size].copy() for start in range(0, len(tokens) - size + 1, size)]
    for piece in windows:
        piece[: len(engine.tokenizer.with_bos([]))] = engine.tokenizer.bos_id or 0
    return windows


def _load(
    artifact: str | os.PathLike[str],
    backends: Sequence[str] | None,
    load: LoadKeywords,
) -> Iterator[Engine]:
    for name in backends or (["auto"] if _on_device(load) else _default_backends(artifact)):
        keywords: LoadKeywords = {**load, "backend": name}
        yield Engine.load(artifact, **keywords)


def _on_device(load: LoadKeywords) -> bool:
    return load.get("gpu", "off") != "off" or load.get("provider") is not None


def _default_backends(artifact: str | os.PathLike[str]) -> list[str]:
    """For a GGUF the reference, the engine's choice, and llama.cpp if installed; for ONNX onnxruntime."""
    formats = model_formats(artifact)
    names = []
    if "gguf" in formats:
        with Engine.load(artifact) as engine:
            chosen = engine.backend_choice.name
        names = ["reference", chosen, *(["llamacpp"] if importlib.util.find_spec("llama_cpp") else [])]
    return list(dict.fromkeys([*names, *(["onnx"] if "onnx" in formats else [])]))
