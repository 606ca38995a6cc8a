"""The text of a calibrated export as token ids: the packaged one, or the user's files.

The packaged text is a list of documents. A conversation is rendered with the model's chat template up to its
last answer, which follows the template's generation prompt. Reasoning comes before it, as in a reply of R1, and begins
with ``<think>`` if the template does not open it.
A user's file is one document of plain text, in which special tokens are parsed. Packaged documents are mixed in:
rounding that is fitted to one task's text alone costs what the model does elsewhere, and the task gains nothing by it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from sprat.arrays import I32Array
from sprat.errors import InputError, TemplateError
from sprat.export.texts import calibration_text, evaluation_text
from sprat.files import read_text
from sprat.runtime.chat.prompt import chat_prompt
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.chat.template_files import template_from_metadata
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = [
    "Document",
    "calibration_and_evaluation",
    "calibration_sequences",
    "evaluation_sequences",
    "hold_out",
    "packaged_documents",
    "with_packaged",
]

_WINDOW = 512
_MIN_TOKENS = 8  # a shorter sequence shows a matrix little
_THINK = "<think>\n"
_HELD_OUT = 8
_PACKAGED_SHARE = 0.25  # of the tokens, beside a user's text
_STRIDE = 4  # the first quarter of the sequences has every fourth document
_MARK = re.compile(r"^%%%% (\w+)\n", re.MULTILINE)
_PART = re.compile(r"^%% (\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """A text, or a conversation.

    Attributes:
        parts: role and text of each message; ``think`` is the reasoning before the last answer. A text has one part
            without a role.
    """

    parts: tuple[tuple[str, str], ...]


def packaged_documents() -> list[Document]:
    """The documents of :func:`~sprat.export.texts.calibration_text`."""
    _, *marked = _MARK.split(calibration_text())
    return [_document(kind, text) for kind, text in zip(marked[::2], marked[1::2], strict=True)]


def calibration_sequences(
    metadata: Mapping[str, Any], files: Sequence[Path] = (), *, window: int = _WINDOW
) -> list[I32Array]:
    """The token ids of the calibration text, in sequences that begin with BOS if the model has one.

    Args:
        metadata: the ``tokenizer.*`` keys of the model.
        files: text files to use instead of the packaged documents.
        window: largest length of a sequence.

    Raises:
        InputError: a file cannot be read as UTF-8, or the text is too short.
        TokenizerError: the model has no tokenizer.
    """
    tokenizer, template = Tokenizer.from_gguf(metadata), template_from_metadata(metadata)
    if files:
        documents = [tokenizer.encode(_read(file), parse_special=True) for file in files]
    else:
        documents = [_encode(document, tokenizer, template) for document in packaged_documents()]
    sequences = [piece for tokens in documents for piece in _windows(tokens, tokenizer, window)]
    if not sequences:
        raise InputError(
            f"the calibration text has no sequence of {_MIN_TOKENS} tokens; pass a longer text with --calibration"
        )
    return [sequence for start in range(_STRIDE) for sequence in sequences[start::_STRIDE]]


def hold_out(sequences: Sequence[I32Array]) -> tuple[list[I32Array], list[I32Array]]:
    """Split into calibration and held-out sequences: every eighth is held out, none of fewer than sixteen."""
    if len(sequences) < 2 * _HELD_OUT:
        return list(sequences), []
    return [text for number, text in enumerate(sequences) if number % _HELD_OUT], list(sequences[::_HELD_OUT])


def with_packaged(own: Sequence[I32Array], metadata: Mapping[str, Any]) -> list[I32Array]:
    """The user's sequences, and packaged ones evenly between them: a quarter of all tokens, or all that there are.

    Args:
        own: token ids of the user's text.
        metadata: the ``tokenizer.*`` keys of the model.
    """
    packaged = calibration_sequences(metadata)
    most = math.ceil(sum(map(len, own)) * _PACKAGED_SHARE / (1 - _PACKAGED_SHARE))
    before = [0, *accumulate(map(len, packaged))]
    taken = [sequence[:most] for sequence, start in zip(packaged, before, strict=False) if start < most]
    places = [((number + 0.5) / len(part), text) for part in (own, taken) for number, text in enumerate(part)]
    return [text for _, text in sorted(places, key=lambda place: place[0])]


def calibration_and_evaluation(
    sequences: Sequence[I32Array], tokenizer: Mapping[str, Any], *, is_own: bool
) -> tuple[Sequence[I32Array], Sequence[I32Array]]:
    """The sequences to calibrate with, and those to compare on.

    A user's text says what the model is for, so a part of it is held out; for a short one, the packaged evaluation text
    is taken.

    Args:
        sequences: token ids of the calibration text.
        tokenizer: the ``tokenizer.*`` keys.
        is_own: the text is the user's, not the packaged one.
    """
    kept, held_out = hold_out(sequences) if is_own else (sequences, [])
    return kept, held_out or evaluation_sequences(tokenizer)


def evaluation_sequences(tokenizer: Mapping[str, Any]) -> list[I32Array]:
    """The evaluation text, which no calibration reads, in windows."""
    found = Tokenizer.from_gguf(tokenizer)
    tokens = found.encode(evaluation_text())
    window = _WINDOW - 1  # and BOS
    pieces = [tokens[start : start + window] for start in range(0, len(tokens), window)]
    return [np.asarray(found.with_bos(piece), np.int32) for piece in pieces if len(piece) > 1]


def _document(kind: str, text: str) -> Document:
    if kind == "text":
        return Document((("", text.rstrip("\n")),))
    _, *parts = _PART.split(text)
    return Document(tuple((role, part.rstrip("\n")) for role, part in zip(parts[::2], parts[1::2], strict=True)))


def _encode(document: Document, tokenizer: Tokenizer, template: ChatTemplate | None) -> list[int]:
    """Token ids without BOS."""
    if document.parts[0][0] and template is not None:
        try:
            return _without_bos(_conversation(document, tokenizer, template), tokenizer)
        except TemplateError:  # a template may refuse a system message, or a conversation that does not alternate
            pass
    return tokenizer.encode("\n\n".join(text for _, text in document.parts))


def _conversation(document: Document, tokenizer: Tokenizer, template: ChatTemplate) -> list[int]:
    messages = [{"role": role, "content": text} for role, text in document.parts if role != "think"]
    thought = next((text for role, text in document.parts if role == "think"), "")
    prompt = chat_prompt(template, tokenizer, messages[:-1])
    is_open = prompt.text.rstrip().endswith("<think>")
    thinking = f"{'' if is_open else _THINK}{thought}\n</think>\n\n" if thought else ""
    reply = (thinking or ("</think>\n\n" if is_open else "")) + messages[-1]["content"]
    end = [] if tokenizer.vocabulary.eos_id is None else [tokenizer.vocabulary.eos_id]
    return [*prompt.tokens, *tokenizer.encode(reply, parse_special=True), *end]


def _without_bos(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    return tokens[len(tokenizer.with_bos([])) :]


def _windows(tokens: list[int], tokenizer: Tokenizer, window: int) -> Iterator[I32Array]:
    step = window - len(tokenizer.with_bos([]))
    for start in range(0, len(tokens), step):
        piece = tokenizer.with_bos(tokens[start : start + step])
        if len(piece) >= _MIN_TOKENS:
            yield np.asarray(piece, np.int32)


def _read(file: Path) -> str:
    try:
        return read_text(file).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as a text in UTF-8 ({error}); pass a text file") from error
