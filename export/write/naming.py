"""A model's name: its parts, its ``general.*`` keys, and its file name by the GGUF naming convention.

``BaseName-SizeLabel[-FineTune]-Version-Encoding.gguf``, as in ``DeepSeek-V2-Lite-64x1.5B-Chat-v1.0-Q4_0.gguf``
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#gguf-naming-convention). The ``gguf`` package
splits a repository's name into parts and makes the size label, as in llama.cpp's own converter.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sprat.errors import InputError
from sprat.files import read_text
from sprat.runtime.arch.tensors import is_routed_expert
from sprat.runtime.files.split_name import model_stem

__all__ = ["ModelName", "model_card", "model_id"]

Shapes = Mapping[str, tuple[int, ...]]

_HUB_FOLDER = re.compile(r"models--(?:(?P<owner>.+?)--)?(?P<name>.+)")
_MAX_FILE_NAME = 220  # of 255, with room for the number of a part and for .journal
_DEFAULT_VERSION = "v1.0"  # the convention's default
_SIZE_LABEL = re.compile(r"(\d+x)?(\d+\.)?\d+[A-Za-z](-[A-Za-z]+(\d+\.)?\d+[A-Za-z]+)?")  # the convention's
_FRONT_MATTER_LICENSE = re.compile(r"---\n(?:(?!---).*\n)*?license: *([\w.+-]+) *\n")
_NOT_IN_A_FILE_NAME = re.compile(r"[^A-Za-z0-9]+")
_VERSION = re.compile(r"[vV]\d+(\.\d+)*")
_TRAINER_STEP = re.compile(r"(checkpoint|step|epoch)[-_]?\d+")  # what trainers call the folders inside a model's
_LETTERS = str.maketrans({"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """The parts of a model's name; without a ``version`` the file name says v1.0 and there is no key."""

    name: str
    base_name: str
    size_label: str
    fine_tune: str | None = None
    version: str | None = None

    @classmethod
    def parse(cls, identity: str, shapes: Shapes) -> ModelName:
        """Split ``owner/Name-7B-Chat``; the size label is taken from the name, else computed from ``shapes``.

        Args:
            identity: a repository, a folder or ``general.name``.
            shapes: canonical tensor names -> shapes.
        """
        import gguf

        counts = _parameter_counts(shapes)
        full, _, base, fine_tune, version, label = gguf.Metadata.get_model_id_components(identity, counts[0])
        name = full or "model"
        base = base or name
        if version and not _VERSION.fullmatch(version):  # a date or a training step, which is part of the name
            base, fine_tune = (base, f"{fine_tune}-{version}") if fine_tune else (f"{base}-{version}", None)
            version = None
        return cls(
            name=name,
            base_name=base,
            size_label=label or gguf.size_label(*counts),
            fine_tune=fine_tune,
            version=version,
        )

    @classmethod
    def of(cls, identity: str, metadata: Mapping[str, Any], shapes: Shapes) -> ModelName:
        """The name of a source: from its ``general.*`` keys where it has them, else from ``identity``.

        Args:
            identity: the source's name, ``owner/Name-7B-Chat``.
            metadata: the keys of a GGUF; empty for a folder.
            shapes: canonical tensor names -> shapes.
        """
        said = {key: value for key, value in metadata.items() if isinstance(value, str) and value}
        parsed = cls.parse(said.get("general.name", identity), shapes)
        label = said.get("general.size_label", "")
        return cls(
            name=parsed.name,
            base_name=said.get("general.basename", parsed.base_name),
            size_label=label if _SIZE_LABEL.fullmatch(label) else parsed.size_label,
            fine_tune=said.get("general.finetune", parsed.fine_tune),
            version=said.get("general.version", parsed.version),
        )

    def sized(self, shapes: Shapes) -> ModelName:
        """The same name with the size of these tensors: of a model that lost some."""
        import gguf

        return replace(self, size_label=gguf.size_label(*_parameter_counts(shapes)))

    def file_name(self, encoding: str) -> str:
        """The file name when most weights are ``encoding``, with the characters that the convention allows.

        Raises:
            InputError: it would be longer than file systems allow.

        Example:
            >>> ModelName(name="V2 Lite", base_name="V2 Lite", size_label="64x1.5B").file_name("q4_0")
            'V2-Lite-64x1.5B-v1.0-Q4_0.gguf'
        """
        number = re.search(r"\d+(\.\d+)*", self.version or _DEFAULT_VERSION)
        version = f"v{number[0]}" if number else _DEFAULT_VERSION
        parts = [
            _sanitized(self.base_name) or "model",
            self.size_label,
            _sanitized(self.fine_tune or ""),
            version,
            encoding.upper(),
        ]
        name = "-".join(filter(None, parts)) + ".gguf"
        if len(name) > _MAX_FILE_NAME:
            raise InputError(
                f"the model's name makes a file name of {len(name)} characters, {name[:40]}…; expected at most "
                f"{_MAX_FILE_NAME}: give a shorter name with --name"
            )
        return name

    def metadata(self) -> dict[str, str]:
        """The ``general.*`` keys that hold these parts."""
        keys = {
            "general.name": self.name,
            "general.basename": self.base_name,
            "general.size_label": self.size_label,
            "general.finetune": self.fine_tune,
            "general.version": self.version,
        }
        return {key: value for key, value in keys.items() if value}


def model_id(path: Path) -> str:
    """The name of the model at ``path``: the repository of a hub cache, a folder's name, or a file's stem.

    A trainer's folder of one step (``checkpoint-500``) is named after the folder that it is in, too.

    Example:
        >>> model_id(Path("/hub/models--deepseek-ai--DeepSeek-V2-Lite/snapshots/604d56"))
        'deepseek-ai/DeepSeek-V2-Lite'
    """
    for folder in path.parts:
        if found := _HUB_FOLDER.fullmatch(folder):
            return "/".join(filter(None, found.groups()))
    if path.suffix == ".gguf":
        return model_stem(path)
    return f"{path.parent.name}-{path.name}" if _TRAINER_STEP.fullmatch(path.name) and path.parent.name else path.name


def model_card(path: Path) -> dict[str, str]:
    """The license in the front matter of a folder's README.md, as a ``general.*`` key."""
    card = path / "README.md"
    text = read_text(card, errors="replace") if card.is_file() else ""
    found = _FRONT_MATTER_LICENSE.match(text)
    return {"general.license": found[1]} if found else {}


def _parameter_counts(shapes: Shapes) -> tuple[int, int, int, int]:
    """Parameters in total, parameters used by every token, parameters per expert over all layers, and experts."""
    experts = {name: shape for name, shape in shapes.items() if is_routed_expert(name)}
    total = sum(map(math.prod, shapes.values()))
    routed = sum(map(math.prod, experts.values()))
    n_experts = max((shape[0] for shape in experts.values()), default=0)
    return total, total - routed, routed // max(n_experts, 1), n_experts


def _sanitized(part: str) -> str:
    """``part`` in the letters that the convention allows: accents are dropped."""
    plain = unicodedata.normalize("NFKD", part.translate(_LETTERS))
    letters = "".join(char for char in plain if not unicodedata.combining(char))
    return _NOT_IN_A_FILE_NAME.sub("-", letters).strip("-")
