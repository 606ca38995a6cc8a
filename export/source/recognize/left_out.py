"""Tensors of a checkpoint that an export leaves out, and what is compared before one is.

- Layers of multi-token prediction, which sprat does not run, whether or not the config declares them. They are kept for
  architectures that llama.cpp drafts with (:attr:`~sprat.runtime.arch.spec.ModelSpec.n_mtp_layers`).
- An output head that equals the embeddings in a model that ties them. If it differs, both are kept, as transformers 5
  does (``PreTrainedModel.tie_weights``); if the embeddings are missing, the head stands for both.
- RoPE frequencies that old checkpoints saved as buffers; the config gives them. A difference is reported.
- Scales of activations in FP8 checkpoints: sprat does not quantize activations to FP8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from sprat.export.source.file import FileTensor
from sprat.export.source.fp8 import SCALE_SUFFIX
from sprat.export.source.rows import RowSource, read_rows
from sprat.export.source.tensor_map import mtp_map
from sprat.runtime.arch.fp8_config import is_fp8
from sprat.runtime.arch.rope import rope_frequencies
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import is_optional_mtp, mtp_tensors
from sprat.runtime.files.shape_checks import Shapes, mtp_in_gguf, summarize

__all__ = ["EMBEDDINGS", "HEAD", "Kept", "kept_mtp_note", "leave_out", "mtp_names", "mtp_of_gguf", "same_values"]

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"

_LAYER = re.compile(r"model\.layers\.(\d{1,6})\.(\w+)")
_MTP_MODULES = {"eh_proj", "enorm", "hnorm", "shared_head"}  # of a DeepSeek-V3 MTP layer and of no other
_MTP_PREFIX = re.compile(r"(model\.)?mtp(_\w+)?\.")  # of architectures that keep them apart
_DECLARED = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
_FREQUENCIES = re.compile(r"(model\.layers\.\d+\.self_attn\.|model\.)rotary_emb\.(original_)?inv_freq")
_ACTIVATION_SCALE = re.compile(r".*\.(activation_scale|input_scale)")
_BF16_ROUNDING = 1e-2
_CHUNK_BYTES = 4 << 20

Rows = Callable[[str], RowSource]


class Kept(msgspec.Struct, frozen=True):
    """The tensors to export, the spec that they are of, and what the user should know."""

    spec: ModelSpec
    tensors: dict[str, FileTensor]
    notes: tuple[str, ...]


def leave_out(
    stored: Mapping[str, FileTensor], spec: ModelSpec, config: Mapping[str, Any], rows: Rows, *, keep_head: bool = False
) -> Kept:
    """Sort out what an export does not use; reads weights only where two tensors must be equal.

    Args:
        stored: the tensors, by name.
        spec: what the config says.
        config: the config, for the number of MTP layers and the kind of quantization.
        rows: the weights of a tensor by its name, FP8 scales applied.
        keep_head: keep an output head that equals the embeddings, since an adapter will change one of them.
    """
    notes: list[str] = []
    kept = dict(stored)
    mtp = mtp_names(stored, spec.n_layers, config)
    if mtp and spec.n_mtp_layers and _is_whole(mtp, stored, spec):
        notes.append(kept_mtp_note(len(mtp)))
        mtp = set()
    else:
        spec = replace(spec, n_mtp_layers=0)
        notes += [_mtp_note(mtp, config)] if mtp else []
    frequencies = {name for name in stored if _FREQUENCIES.fullmatch(name)}
    notes += _frequency_notes(frequencies, spec, rows)
    activations = {name for name in stored if is_fp8(config) and _ACTIVATION_SCALE.fullmatch(name)}
    for name in (*mtp, *frequencies, *activations):
        kept.pop(name, None)
    if spec.tied_embeddings and HEAD in kept:
        spec = replace(spec, tied_embeddings=False) if keep_head else _settle_head(kept, spec, notes, rows)
    return Kept(spec, kept, tuple(notes))


def mtp_names(names: Iterable[str], n_layers: int, config: Mapping[str, Any]) -> set[str]:
    """Names of the tensors of multi-token prediction.

    A layer after the model's own is one if the config declares it, or if it has modules that only such a layer has.
    """
    names = list(names)
    matches = {name: match for name in names if (match := _LAYER.match(name))}
    declared = next((config[key] for key in _DECLARED if isinstance(config.get(key), int)), 0)
    layers = {int(match[1]) for match in matches.values() if match[2] in _MTP_MODULES} | {
        *range(n_layers, n_layers + min(declared, len(names)))
    }
    in_layers = {name for name, match in matches.items() if int(match[1]) >= n_layers and int(match[1]) in layers}
    return in_layers | {name for name in names if _MTP_PREFIX.match(name)}


def kept_mtp_note(n_tensors: int) -> str:
    """The note for users about an MTP layer that is kept in a file."""
    return (
        f"{n_tensors} tensors of multi-token prediction are kept in the GGUF, for llama.cpp; sprat does not run them, "
        "and an ONNX model has none"
    )


def mtp_of_gguf(spec: ModelSpec, shapes: Shapes) -> tuple[ModelSpec, set[str], tuple[str, ...]]:
    """The spec with the MTP layers that are kept, the tensors that are left out, and a note for the user."""
    found = {name: shapes[name] for name in mtp_in_gguf(shapes, spec)}
    known = mtp_tensors(spec)
    needed = {name for name in known if not is_optional_mtp(name)}
    if found and needed <= found.keys() and found.items() <= known.items():
        return spec, set(), (kept_mtp_note(len(found)),)
    note = f"{len(found)} tensors of multi-token prediction are left out: sprat does not run it"
    return replace(spec, n_mtp_layers=0), set(found), (note,) if found else ()


def _is_whole(mtp: set[str], stored: Mapping[str, FileTensor], spec: ModelSpec) -> bool:
    """Whether the MTP layers have all tensors that llama.cpp needs, in their shapes, and no others."""
    origins = mtp_map(spec)
    shapes = {source: origin.source_shape for origin in origins.values() for source in origin.sources}
    needed = {source for name, origin in origins.items() if not is_optional_mtp(name) for source in origin.sources}
    known = {*shapes, *(source + SCALE_SUFFIX for source in shapes)}
    return needed <= mtp <= known and all(stored[name].shape == shapes[name] for name in mtp & shapes.keys())


def same_values(one: RowSource, other: RowSource) -> bool:
    """Whether two matrices have the same size and hold the same values, whatever their formats; NaN equals nothing."""
    if (one.n_rows, one.n_columns) != (other.n_rows, other.n_columns):
        return False
    step = max(1, _CHUNK_BYTES // max(1, one.format.row_bytes(one.n_columns)))
    for start in range(0, one.n_rows, step):
        stop = min(start + step, one.n_rows)
        first, second = (source.format.dequantize(read_rows(source, start, stop)) for source in (one, other))
        if not np.array_equal(first, second):
            return False
    return True


def _settle_head(kept: dict[str, FileTensor], spec: ModelSpec, notes: list[str], rows: Rows) -> ModelSpec:
    if EMBEDDINGS not in kept:
        _rename(kept, HEAD, EMBEDDINGS)
        notes.append(f"{HEAD} stands for the missing {EMBEDDINGS} too, since config.json ties them")
        return spec
    if same_values(rows(EMBEDDINGS), rows(HEAD)):
        for name in (HEAD, HEAD + SCALE_SUFFIX):
            kept.pop(name, None)
        return spec
    notes.append(
        f"config.json says tie_word_embeddings, but {HEAD} differs from {EMBEDDINGS}: "
        "both are kept, as transformers does"
    )
    return replace(spec, tied_embeddings=False)


def _rename(kept: dict[str, FileTensor], old: str, new: str) -> None:
    for suffix in ("", SCALE_SUFFIX):
        if old + suffix in kept:
            kept[new + suffix] = kept.pop(old + suffix)


def _mtp_note(names: set[str], config: Mapping[str, Any]) -> str:
    layers = {match[0].rpartition(".")[0] for name in names if (match := _LAYER.match(name))}
    others = {name.partition(".")[0] for name in names if not _LAYER.match(name)}
    undeclared = "" if any(config.get(key) for key in _DECLARED) else ", which config.json does not declare"
    return (
        f"{len(names)} tensors of multi-token prediction are left out ({summarize(sorted(layers | others), 3)}"
        f"{undeclared}): sprat does not run it"
    )


def _frequency_notes(names: set[str], spec: ModelSpec, rows: Rows) -> Iterator[str]:
    """A note if saved frequencies differ from the config's, with or without its scaling, beyond rounding to BF16."""
    expected = [rope_frequencies(replace(spec.rope, scaling=scaling)) for scaling in (spec.rope.scaling, None)]
    different = []
    for name in sorted(names):
        saved = rows(name)
        values = saved.format.dequantize(read_rows(saved, 0, saved.n_rows)).ravel()
        if not any(values.shape == e.shape and np.allclose(values, e, rtol=_BF16_ROUNDING) for e in expected):
            different.append(repr(name))
    if different:
        yield (
            f"saved RoPE frequencies differ from those of config.json, which are used, as transformers does: "
            f"{summarize(different, 3)}"
        )
