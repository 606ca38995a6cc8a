"""``open_model``: architecture, name, tokenizer and chat template of a model file, for GGUF and ONNX alike."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.chat.template_files import template_from_files, template_from_metadata
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_spec import keys_of, spec_of
from sprat.runtime.files.integrity.finite_check import check_finite
from sprat.runtime.files.latent_tensors import split_latent_tensors
from sprat.runtime.files.model_file import ModelFile, find_model, model_formats
from sprat.runtime.files.onnx.file import ONNXFile
from sprat.runtime.generate.sampling_defaults import (
    SamplingDefaults,
    sampling_from_config,
    sampling_from_metadata,
)
from sprat.runtime.tokenizer.hf_files import TokenizerFiles, has_tokenizer, read_generation_config
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = [
    "GGUFModel",
    "ONNXModel",
    "OpenModel",
    "open_model",
]


class OpenModel(Protocol):
    """A model file that was opened and checked."""

    @property
    def file(self) -> ModelFile:
        """The file."""

    @property
    def spec(self) -> ModelSpec:
        """The architecture."""

    @property
    def name(self) -> str:
        """The model's name in chat completions."""

    def tokenizer(self) -> Tokenizer:
        """Read the tokenizer."""

    def template(self) -> ChatTemplate | None:
        """Read the chat template, if the model has one."""

    def sampling(self) -> SamplingDefaults:
        """Read the model's sampling parameters."""


class GGUFModel(msgspec.Struct, frozen=True):
    """A GGUF model: one file holds everything."""

    file: GGUFFile
    spec: ModelSpec

    @classmethod
    def open(cls, path: Path) -> GGUFModel:
        """Open and check the file."""
        file = GGUFFile.open(path)
        spec = spec_of(file)
        split = split_latent_tensors(file, spec)
        split.check(spec)
        check_finite(file)
        return cls(split, spec)

    @property
    def name(self) -> str:
        """``general.name``, or the name of the file."""
        return self.file.name

    def tokenizer(self) -> Tokenizer:
        """The tokenizer in the metadata."""
        with keys_of(self.file.path):
            return Tokenizer.from_gguf(self.file.metadata)

    def template(self) -> ChatTemplate | None:
        """The chat template in the metadata."""
        return template_from_metadata(self.file.metadata)

    def sampling(self) -> SamplingDefaults:
        """The ``general.sampling.*`` keys of the metadata."""
        return sampling_from_metadata(self.file.metadata)


class ONNXModel(msgspec.Struct, frozen=True):
    """An ONNX model, with the tokenizer files in the same folder."""

    file: ONNXFile

    @classmethod
    def open(cls, path: Path, *, trust: bool = False) -> ONNXModel:
        """Open and check the file; with ``trust`` operators of others are taken."""
        return cls(ONNXFile.open(path, trust=trust))

    @property
    def spec(self) -> ModelSpec:
        """The architecture in the model's metadata."""
        return self.file.spec

    @property
    def name(self) -> str:
        """The name in the model's metadata, or the name of the folder."""
        return self.file.name

    def tokenizer(self) -> Tokenizer:
        """The tokenizer in the folder's files; without one, the model takes token ids only."""
        folder = self.file.path.parent
        if not has_tokenizer(folder):
            return Tokenizer.from_gguf({})
        return Tokenizer.from_files(TokenizerFiles(folder, self.spec.vocab_size))

    def template(self) -> ChatTemplate | None:
        """chat_template.jinja, or the template in tokenizer_config.json; none without a tokenizer."""
        folder = self.file.path.parent
        return template_from_files(TokenizerFiles(folder)) if has_tokenizer(folder) else None

    def sampling(self) -> SamplingDefaults:
        """The generation_config.json of the folder."""
        return sampling_from_config(read_generation_config(self.file.path.parent))


def open_model(path: str | os.PathLike[str], backend: str = "auto", *, trust: bool = False) -> OpenModel:
    """Open a bundle, a ``.gguf`` or a ``.onnx`` file.

    Args:
        path: a bundle or a model file.
        backend: the backend that will run it; from a bundle with both formats, ``onnx`` selects the ONNX model.
        trust: take an ONNX graph with operators that sprat's exporter does not write.

    Raises:
        InputError: the model cannot be read, or is damaged; see :mod:`sprat.errors` for the subclasses.
    """
    found = find_model(path, backend)
    if model_formats(found) == ["onnx"]:
        return ONNXModel.open(found, trust=trust)
    return GGUFModel.open(found)
