"""Consistency checks of a GGUF, made before any tensor data is used.

:func:`check_types` checks the types of metadata values, :func:`check_layout` checks tensors against the file (formats,
sizes, offsets, overlaps), and :func:`check_model` checks tensors and vocabulary against the architecture in the
metadata. Each reports all problems in one error.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sprat.errors import FormatError, ModelFileError
from sprat.quant.formats.read_only import any_format
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.gguf_header import DAMAGED, Header, TensorRecord
from sprat.runtime.files.shape_checks import Shapes, compare_with_spec, summarize

__all__ = [
    "TensorInfo",
    "check_layout",
    "check_model",
    "check_types",
    "refuse_scales",
    "vocabulary_problems",
]

_SCALE = re.compile(r"(blk\.\d{1,6}\.)?\w+\.(input_)?scale")
_PER_TOKEN_KEYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores")
_KEY_TYPES: dict[type, str] = {
    str: """
        general.architecture general.basename general.finetune general.name general.size_label general.version
        tokenizer.ggml.model tokenizer.ggml.pre tokenizer.huggingface.json""",
    list: "tokenizer.ggml.merges tokenizer.ggml.tokens",
    np.ndarray: "tokenizer.ggml.scores tokenizer.ggml.token_type",
    bool: "tokenizer.ggml.add_bos_token tokenizer.ggml.add_eos_token tokenizer.ggml.add_space_prefix",
    int: "split.count split.no split.tensors.count",
}
_EXPECTED_TYPES = {key: kind for kind, keys in _KEY_TYPES.items() for key in keys.split()}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One entry of the tensor table.

    Attributes:
        name: name in the file.
        shape: in C order, ``(out, in)``; the last axis is ggml's ``ne[0]``.
        format_type: the block format as a ``ggml_type``.
        offset: first byte, counted from the start of the file.
        nbytes: size of the data in bytes.
        part: index of the file that holds it; 0 unless the model is split.
    """

    name: str
    shape: tuple[int, ...]
    format_type: int
    offset: int
    nbytes: int
    part: int = 0

    @property
    def end(self) -> int:
        """Offset after the last byte."""
        return self.offset + self.nbytes

    @property
    def type_name(self) -> str:
        """Name of the format in ggml, such as ``Q4_0`` or ``IQ2_XS``."""
        return any_format(self.format_type).name

    @property
    def n_weights(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def check_types(metadata: Mapping[str, Any], path: str) -> None:
    """Check the types of the values of well-known keys.

    Args:
        metadata: the file's metadata.
        path: the file's name, for messages.

    Raises:
        ModelFileError: a value has another type; the message names every such key.
    """
    kinds = {key: int if _is_token_id(key) else _EXPECTED_TYPES.get(key, object) for key in metadata}
    wrong = [
        f"{key} is of type {type(metadata[key]).__name__}, expected {kind.__name__}"
        for key, kind in kinds.items()
        if not isinstance(metadata[key], kind)
    ]
    if wrong:
        raise ModelFileError(f"{path}: {summarize(wrong)}; {DAMAGED}")


def check_layout(header: Header, *, file_bytes: int, path: str) -> dict[str, TensorInfo]:
    """Locate the tensors of ``header`` in a file of ``file_bytes`` bytes.

    Returns:
        Name -> tensor, in file order.

    Raises:
        ModelFileError: an unknown format, a row that is not a whole number of blocks, a misaligned offset, a tensor
            that extends past the end of the file or overlaps another; the message names every such tensor.
    """
    problems: list[str] = []
    infos: list[TensorInfo] = []
    for record in header.tensors:
        try:
            infos.append(_locate(record, header))
        except FormatError as error:
            problems.append(f"byte {record.at}: {record.name!r}: {error}")
    problems += _offset_problems(infos, header, file_bytes)
    problems += _overlaps(infos)
    if problems:
        raise ModelFileError(f"{path}: {summarize(problems)}; {DAMAGED}")
    return {info.name: info for info in infos}


def _locate(record: TensorRecord, header: Header) -> TensorInfo:
    row_bytes = any_format(record.ggml_type).row_bytes(record.shape[-1])
    nbytes = math.prod(record.shape[:-1]) * row_bytes
    return TensorInfo(record.name, record.shape, record.ggml_type, header.data_start + record.offset, nbytes)


def _offset_problems(infos: Collection[TensorInfo], header: Header, file_bytes: int) -> Iterator[str]:
    start, alignment = header.data_start, header.alignment
    for info in infos:
        if (info.offset - start) % alignment:
            yield f"{info.name!r} starts at byte {info.offset}, expected a multiple of {alignment} after byte {start}"
    beyond = [f"{info.name!r} to byte {info.end}" for info in infos if info.end > file_bytes]
    if beyond:
        yield f"{len(beyond)} of {len(infos)} tensors extend past the file's {file_bytes} bytes: {summarize(beyond, 3)}"


def _overlaps(infos: Iterable[TensorInfo]) -> Iterator[str]:
    by_offset = sorted(infos, key=lambda info: info.offset)
    for left, right in itertools.pairwise(by_offset):
        if left.end > right.offset:
            yield f"{right.name!r} at byte {right.offset} overlaps {left.name!r}, which ends at {left.end}"


def check_model(spec: ModelSpec, shapes: Shapes, metadata: Mapping[str, Any], path: str | Path) -> None:
    """Compare tensors and vocabulary of a file with the architecture in its metadata.

    Args:
        spec: the architecture.
        shapes: name -> shape of every tensor in the file.
        metadata: the file's metadata.
        path: the file's name, for messages.

    Raises:
        ModelFileError: missing or unexpected tensors, size mismatches, or a vocabulary of another size than the
            embeddings; all of them in one message. Or tensors with a scale of their own.
    """
    refuse_scales(shapes, path)
    problems = compare_with_spec(spec, shapes)
    problems += vocabulary_problems(metadata, spec.vocab_size)
    if problems:
        raise ModelFileError(
            f"{path}: not a complete {spec.architecture} model of {spec.n_layers} layers and {spec.vocab_size} tokens: "
            f"{'; '.join(problems)}; {DAMAGED}"
        )


def refuse_scales(names: Iterable[str], path: str | Path) -> None:
    """Refuse a file with scales of whole tensors, by which llama.cpp multiplies a product: those of NVFP4 have them.

    Raises:
        ModelFileError: the message has the first one.
    """
    if scales := [name for name in names if _SCALE.fullmatch(name)]:
        raise ModelFileError(
            f"{path}: {len(scales)} scales of tensors, such as {scales[0]!r} (NVFP4 of other writers), expected none: "
            "sprat does not multiply by them; use a GGUF in another format, or export the original checkpoint"
        )


def vocabulary_problems(metadata: Mapping[str, Any], vocab_size: int) -> Iterator[str]:
    """The tokenizer keys that disagree with ``vocab_size``, the number of rows of the embedding.

    Ids of special tokens may name no token: such a key counts as absent.
    """
    for key in _PER_TOKEN_KEYS:
        n_entries = len(metadata.get(key, range(vocab_size)))
        if n_entries != vocab_size:
            yield f"{key} has {n_entries} entries, expected {vocab_size} as in token_embd.weight"


def _is_token_id(key: str) -> bool:
    return key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
