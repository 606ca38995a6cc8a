"""``Architecture``: the base class of a model family. One architecture is one file in ``architectures/``.

A subclass registers itself under its ``general.architecture`` name in llama.cpp. It reads the family's ``config.json``
and GGUF keys into a :class:`~sprat.runtime.arch.spec.ModelSpec`; tensors, cache, forward pass, writers and plans
follow from the spec.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["Architecture", "ConfigReader", "architectures", "config_readers", "reads_config"]

ConfigReader: TypeAlias = Callable[[Fields], ModelSpec]

_FOLDER = f"{__package__}.architectures"
_REGISTERED: dict[str, Architecture] = {}
_READERS: dict[str, ConfigReader] = {}  # those of reads_config


class Architecture(ABC):
    """A model family.

    Attributes:
        name: ``general.architecture`` of its GGUF files.
        hf_tensors: canonical tensor role -> module name in a checkpoint's layer, where it differs from the default
            (:mod:`sprat.export.source.tensor_map`).
        has_rope_factors: whether llama.cpp reads Llama 3.1's scaling, the tensor ``rope_freqs.weight``, of this one.
        genai_type: ``model.type`` of onnxruntime-genai; ``None`` if onnxruntime-genai does not support it.
    """

    name: ClassVar[str]
    hf_tensors: ClassVar[Mapping[str, str]] = {}
    has_rope_factors: ClassVar[bool] = False
    genai_type: ClassVar[str | None] = None

    def __init_subclass__(cls, *, name: str) -> None:
        super().__init_subclass__()
        assert name not in _REGISTERED, f"{cls.__name__}: {name} is registered by {type(_REGISTERED[name]).__name__}"
        cls.name = name
        _REGISTERED[name] = cls()

    @property
    @abstractmethod
    def config_readers(self) -> Mapping[str, ConfigReader]:
        """Name in ``architectures`` of ``config.json`` -> the reader of that config.

        A reader reads every field that it understands and records problems in the :class:`Fields`.
        """

    @abstractmethod
    def spec_from_gguf(self, fields: Fields, weights: WeightSource) -> ModelSpec:
        """Read the keys under the architecture's prefix; problems are recorded in ``fields``.

        Args:
            fields: the keys without the prefix.
            weights: the tensors, for properties without a key: tied embeddings, biases, RoPE factors.
        """

    def gguf_keys(self, spec: ModelSpec) -> dict[str, Any]:
        """Keys beside those of the spec's parts, without the architecture's prefix."""
        return {}

    def why_not_llamacpp(self, spec: ModelSpec) -> list[str]:
        """Reasons why llama.cpp rejects this model, or silently computes something else; empty if there are none."""
        return []

    def differs_in_llamacpp(self, spec: ModelSpec) -> list[str]:
        """Ways in which llama.cpp computes differently, so that its logits differ; warnings for users."""
        return []


def architectures() -> Mapping[str, Architecture]:
    """``general.architecture`` -> architecture: those in the folder, and subclasses that are defined elsewhere."""
    _import_folder()
    return _REGISTERED


@functools.cache
def _import_folder() -> None:
    for module in pkgutil.iter_modules(importlib.import_module(_FOLDER).__path__):
        importlib.import_module(f"{_FOLDER}.{module.name}")


def reads_config(name: str) -> Callable[[ConfigReader], ConfigReader]:
    """Register the reader of a ``config.json`` whose GGUF architecture belongs to another file of the folder.

    Args:
        name: in ``architectures`` of ``config.json``.
    """

    def register(read: ConfigReader) -> ConfigReader:
        assert name not in _READERS, f"{name} is registered twice"
        _READERS[name] = read
        return read

    return register


def config_readers() -> dict[str, ConfigReader]:
    """Name in ``architectures`` of a ``config.json`` -> its reader, over all architectures."""
    known = architectures()  # importing them registers the other readers
    return {name: read for family in known.values() for name, read in family.config_readers.items()} | _READERS
