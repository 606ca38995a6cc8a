"""What must hold between the declarations of a model file before any of its bytes is used.

:func:`check_types` looks at single keys, :func:`check_layout` compares tensors with the file (types, sizes, offsets,
overlaps), :func:`check_model` compares tensors and vocabulary with the architecture that the metadata describes. Each
collects all it finds before it raises.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sprat.errors import FormatError, ModelFileError
from sprat.quant.formats.read_only import any_format
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.files.gguf_header import DAMAGED, Header, TensorRecord

__all__ = [
    "TensorInfo",
    "check_layout",
    "check_model",
    "check_types",
    "compare_shapes",
    "is_beyond",
    "listing",
    "vocabulary_problems",
]

_ONE_PER_TOKEN = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores")
_KEY_TYPES: dict[type, str] = {
    str: """
        general.architecture general.basename general.finetune general.name general.size_label general.version
        tokenizer.chat_template tokenizer.ggml.model tokenizer.ggml.pre tokenizer.huggingface.json""",
    list: "tokenizer.ggml.merges tokenizer.ggml.tokens",
    np.ndarray: "tokenizer.ggml.scores tokenizer.ggml.token_type",
    bool: "tokenizer.ggml.add_bos_token tokenizer.ggml.add_eos_token tokenizer.ggml.add_space_prefix",
    int: "split.count",
}
_TYPE_OF_KEY = {key: kind for kind, keys in _KEY_TYPES.items() for key in keys.split()}
LISTED = 20  # problems of one kind that a message names; the rest is counted


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        name: as in the file.
        shape: in C order, ``(out, in)``; the last axis is ggml's ``ne[0]``.
        format_type: ggml's number of the block format.
        offset: first byte, counted from the start of the file.
        nbytes: bytes of all blocks.
    """

    name: str
    shape: tuple[int, ...]
    format_type: int
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.offset + self.nbytes

    @property
    def type_name(self) -> str:
        """Name of the format in ggml: ``Q4_0``, ``IQ2_XS``."""
        return any_format(self.format_type).name

    @property
    def n_weights(self) -> int:
        """How many weights the tensor holds."""
        return math.prod(self.shape)


def listing(problems: Iterable[str], at_most: int = LISTED) -> str:
    """``problems`` joined for a message: the first ``at_most``, and how many more there are.

    Example:
        >>> listing(map(str, range(5)), 3)
        '0; 1; 2; and 2 more'
    """
    found = list(problems)
    shown = found[:at_most]
    if len(found) > at_most:
        shown.append(f"and {len(found) - at_most} more")
    return "; ".join(shown)


def check_types(metadata: Mapping[str, Any], path: str) -> None:
    """Keys that everyone reads hold what everyone expects.

    Raises:
        ModelFileError: a list where a name belongs, and the like; the message names every such key.
    """
    kinds = {key: int if _is_token_id(key) else _TYPE_OF_KEY.get(key, object) for key in metadata}
    wrong = [
        f"{key} is of type {type(metadata[key]).__name__}, expected {kind.__name__}"
        for key, kind in kinds.items()
        if not isinstance(metadata[key], kind)
    ]
    if wrong:
        raise ModelFileError(f"{path}: {listing(wrong)}; {DAMAGED}")


def check_layout(header: Header, *, file_bytes: int, path: str) -> dict[str, TensorInfo]:
    """The tensors of ``header`` with their place in a file of ``file_bytes``.

    Raises:
        ModelFileError: an unknown type, a row that is no whole number of blocks, a misaligned offset, a tensor that
            reaches past the end of the file or into another one; the message names every such tensor.
    """
    problems: list[str] = []
    infos: list[TensorInfo] = []
    for record in header.tensors:
        try:
            infos.append(_placed(record, header))
        except FormatError as error:
            problems.append(f"byte {record.at}: {record.name!r}: {error}")
    problems += _misplaced(infos, header, file_bytes)
    problems += _overlaps(infos)
    if problems:
        raise ModelFileError(f"{path}: {listing(problems)}; {DAMAGED}")
    return {info.name: info for info in infos}


def _placed(record: TensorRecord, header: Header) -> TensorInfo:
    row_bytes = any_format(record.ggml_type).row_bytes(record.shape[-1])
    nbytes = math.prod(record.shape[:-1]) * row_bytes
    return TensorInfo(record.name, record.shape, record.ggml_type, header.data_start + record.offset, nbytes)


def _misplaced(infos: Collection[TensorInfo], header: Header, file_bytes: int) -> Iterator[str]:
    start, step = header.data_start, header.alignment
    for info in infos:
        if (info.offset - start) % step:
            yield f"{info.name!r} starts at byte {info.offset}, expected a multiple of {step} from {start}"
    beyond = [f"{info.name!r} to byte {info.end}" for info in infos if info.end > file_bytes]
    if beyond:
        yield f"{len(beyond)} of {len(infos)} tensors reach past the file's {file_bytes} bytes: {listing(beyond, 3)}"


def _overlaps(infos: Iterable[TensorInfo]) -> Iterator[str]:
    ordered = sorted(infos, key=lambda info: info.offset)
    for left, right in itertools.pairwise(ordered):
        if left.end > right.offset:
            yield f"{right.name!r} at byte {right.offset} overlaps {left.name!r}, which ends at {left.end}"


def compare_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Every difference between two tables of name -> shape: one line each for missing, surplus and misshapen ones."""
    missing = [repr(name) for name in expected if name not in found]
    surplus = [repr(name) for name in found if name not in expected]
    misshapen = [
        f"{name!r} is {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    kinds = (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
    return [f"{len(names)} {kind}: {listing(names)}" for kind, names in kinds if names]


def check_model(
    spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, Any], path: str | Path
) -> None:
    """Compare a whole file with the architecture that its metadata describes.

    Args:
        spec: the architecture.
        shapes: name -> shape of every tensor in the file.
        metadata: its keys.
        path: its name, for messages.

    Raises:
        ModelFileError: tensors that are missing, surplus or misshapen, or a vocabulary of another size than the
            embeddings; all of them in one message.
    """
    found = {name: shape for name, shape in shapes.items() if not is_beyond(name, spec.n_layers)}
    problems = compare_shapes(found, expected_tensors(spec))
    problems += vocabulary_problems(metadata, spec.vocab_size)
    if problems:
        raise ModelFileError(
            f"{path}: not a whole {spec.architecture} model of {spec.n_layers} layers and {spec.vocab_size} tokens: "
            f"{'. '.join(problems)}. {DAMAGED.capitalize()}"
        )


def is_beyond(name: str, n_layers: int) -> bool:
    """Whether a tensor belongs to a layer of multi-token prediction, which is not run."""
    block, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return block == "blk" and number.isdecimal() and int(number) >= n_layers


def vocabulary_problems(metadata: Mapping[str, Any], vocab_size: int) -> Iterator[str]:
    """What in a file's tokenizer does not fit ``vocab_size`` rows of embeddings."""
    for key in _ONE_PER_TOKEN:
        n_entries = len(metadata.get(key, range(vocab_size)))
        if n_entries != vocab_size:
            yield f"{key} has {n_entries} entries, expected {vocab_size} as in token_embd.weight"
    for key, value in metadata.items():
        if _is_token_id(key) and not 0 <= value < vocab_size:
            yield f"{key} is {value}, expected a token id below {vocab_size}"


def _is_token_id(key: str) -> bool:
    return key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
