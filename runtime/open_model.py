"""What an engine needs of a model file beside its weights: architecture, name, tokenizer, chat template.

Two formats, one shape: :func:`open_model` finds the file behind what a user calls a model, and opens it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.files.finite_check import check_blocks
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.model_file import ModelFile, find_model, held_formats
from sprat.runtime.files.onnx import ONNXFile
from sprat.runtime.tokenizer.hf_files import TokenizerFiles, chat_template
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = [
    "GGUFModel",
    "ONNXModel",
    "OpenModel",
    "find_template",
    "open_model",
]


class OpenModel(Protocol):
    """A model whose file was opened and checked."""

    @property
    def file(self) -> ModelFile:
        """The file."""

    @property
    def spec(self) -> ModelSpec:
        """Its architecture."""

    @property
    def name(self) -> str:
        """What it is called in answers."""

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, read now."""

    def template(self, tokenizer: Tokenizer) -> ChatTemplate | None:
        """Its chat template, if it has one."""


@dataclass(frozen=True, slots=True)
class GGUFModel:
    """A GGUF, which holds everything itself."""

    file: GGUFFile
    spec: ModelSpec

    @classmethod
    def open(cls, path: Path) -> GGUFModel:
        """Open and check the file."""
        file = GGUFFile.open(path)
        spec = spec_from_metadata(file.metadata, file)
        file.check(spec)
        check_blocks(file)
        return cls(file, spec)

    @property
    def name(self) -> str:
        """``general.name``, or the file's."""
        return str(self.file.metadata.get("general.name", self.file.path.stem))

    def tokenizer(self) -> Tokenizer:
        """From the metadata."""
        return Tokenizer.from_gguf(self.file.metadata)

    def template(self, tokenizer: Tokenizer) -> ChatTemplate | None:
        """From the metadata."""
        return find_template(self.file.metadata, tokenizer)


@dataclass(frozen=True, slots=True)
class ONNXModel:
    """An ONNX model, with the tokenizer's files beside it."""

    file: ONNXFile

    @classmethod
    def open(cls, path: Path) -> ONNXModel:
        """Open and check the file."""
        return cls(ONNXFile.open(path))

    @property
    def spec(self) -> ModelSpec:
        """From the model's metadata."""
        return self.file.spec

    @property
    def name(self) -> str:
        """From the model's metadata, or the folder's."""
        return self.file.name

    def tokenizer(self) -> Tokenizer:
        """From tokenizer.json and the configs in the folder."""
        return Tokenizer.from_files(TokenizerFiles(self.file.path.parent, self.spec.vocab_size))

    def template(self, tokenizer: Tokenizer) -> ChatTemplate | None:
        """chat_template.jinja, or what tokenizer_config.json says."""
        return _template(chat_template(TokenizerFiles(self.file.path.parent)), tokenizer)


_READERS: Mapping[str, Callable[[Path], OpenModel]] = {"gguf": GGUFModel.open, "onnx": ONNXModel.open}


def open_model(path: str | os.PathLike[str], backend: str = "auto") -> OpenModel:
    """Open a bundle, a ``.gguf`` or a ``.onnx`` file.

    Args:
        path: what a user calls a model.
        backend: the one that will run it: of a bundle with both formats, ``onnx`` takes the ONNX model.

    Raises:
        InputError: it cannot be read, or is damaged; see :mod:`sprat.errors` for the kinds.
    """
    found = find_model(path, backend)
    return _READERS[held_formats(found)[0]](found)


def find_template(metadata: Mapping[str, Any], tokenizer: Tokenizer) -> ChatTemplate | None:
    """The chat template among a GGUF's metadata, if it has one."""
    return _template(metadata.get("tokenizer.chat_template"), tokenizer)


def _template(source: Any, tokenizer: Tokenizer) -> ChatTemplate | None:
    if not source:
        return None
    vocabulary = tokenizer.vocabulary
    bos, eos = (
        "" if token is None else tokenizer.token_text(token) for token in (vocabulary.bos_id, vocabulary.eos_id)
    )
    return ChatTemplate(str(source), bos, eos)
