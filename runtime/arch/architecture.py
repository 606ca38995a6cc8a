"""``Architecture``: what distinguishes one family of models. One architecture, one file in ``architectures/``.

A subclass registers itself under llama.cpp's ``general.architecture`` name. It says how the family's ``config.json``
and GGUF keys become a :class:`~sprat.runtime.arch.spec.ModelSpec`; tensors, cache, forward pass, writers and plans
follow from the spec.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias

from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["Architecture", "ConfigReader", "architectures", "config_readers"]

ConfigReader: TypeAlias = Callable[[Fields], ModelSpec]

_FOLDER = f"{__package__}.architectures"
_REGISTERED: dict[str, Architecture] = {}


class Architecture(ABC):
    """One family of models.

    Attributes:
        name: ``general.architecture`` of its GGUF files.
        hf_tensors: canonical tensor role -> module in a checkpoint's layer, where it is not the usual one
            (:mod:`sprat.export.source.tensor_map`).
        genai_type: ``model.type`` of onnxruntime-genai; ``None`` where that has no driver.
    """

    name: ClassVar[str]
    hf_tensors: ClassVar[Mapping[str, str]] = {}
    genai_type: ClassVar[str | None] = None

    def __init_subclass__(cls, *, name: str) -> None:
        super().__init_subclass__()
        assert name not in _REGISTERED, f"{cls.__name__}: {name} is {type(_REGISTERED[name]).__name__}'s"
        cls.name = name
        _REGISTERED[name] = cls()

    @property
    @abstractmethod
    def config_readers(self) -> Mapping[str, ConfigReader]:
        """Name in ``architectures`` of ``config.json`` -> what reads that config.

        A reader takes every field that it understands and notes problems in the :class:`Fields`.
        """

    @abstractmethod
    def spec_from_gguf(self, fields: Fields, weights: WeightSource) -> ModelSpec:
        """Read the keys under the architecture's prefix; problems are noted in ``fields``.

        Args:
            fields: the keys without the prefix.
            weights: the tensors, for what no key says: tied embeddings, biases, rope factors.
        """

    def why_not_llamacpp(self, spec: ModelSpec) -> list[str]:
        """What llama.cpp refuses, or silently reads as something else."""
        return []


def architectures() -> Mapping[str, Architecture]:
    """``general.architecture`` -> architecture: those of the folder, and those that were defined elsewhere."""
    for module in pkgutil.iter_modules(importlib.import_module(_FOLDER).__path__):
        importlib.import_module(f"{_FOLDER}.{module.name}")
    return _REGISTERED


def config_readers() -> dict[str, ConfigReader]:
    """Name in ``architectures`` of a ``config.json`` -> its reader, over all architectures."""
    return {name: read for family in architectures().values() for name, read in family.config_readers.items()}
