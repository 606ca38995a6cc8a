"""What a model is called: the parts of its name, its ``general.*`` keys, and its file name by GGUF's convention.

``BaseName-SizeLabel[-FineTune]-Version-Encoding.gguf``, as in ``DeepSeek-V2-Lite-64x1.5B-Chat-v1.0-Q4_0.gguf``
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#gguf-naming-convention). How a repository's name falls into
parts, and what a size label says, is decided by the ``gguf`` package, as it is for llama.cpp's own converter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ModelName", "model_card", "model_id"]

Shapes = Mapping[str, tuple[int, ...]]

_HUB_FOLDER = re.compile(r"models--(?:(?P<owner>.+?)--)?(?P<name>.+)")
_DEFAULT_VERSION = "v1.0"  # what the convention assumes of a model without one
_SIZE_LABEL = re.compile(r"(\d+x)?(\d+\.)?\d+[A-Za-z](-[A-Za-z]+(\d+\.)?\d+[A-Za-z]+)?")  # of the convention
_FRONT_MATTER_LICENCE = re.compile(r"---\n(?:(?!---).*\n)*?license: *([\w.+-]+) *\n")
_NOT_IN_A_FILE_NAME = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """The parts of a model's name; a missing ``version`` is the convention's v1.0 in file names, and no key."""

    name: str
    base_name: str
    size_label: str
    fine_tune: str | None = None
    version: str | None = None

    @classmethod
    def parse(cls, identity: str, shapes: Shapes) -> ModelName:
        """Take ``owner/Name-7B-Chat`` apart; the size label is the name's own, or counted from ``shapes``.

        Args:
            identity: a repository, folder or general.name.
            shapes: canonical tensor names -> shapes.
        """
        import gguf

        counts = _parameter_counts(shapes)
        full, _, base, fine_tune, version, label = gguf.Metadata.get_model_id_components(identity, counts[0])
        name = full or "model"
        return cls(
            name=name,
            base_name=base or name,
            size_label=label or gguf.size_label(*counts),
            fine_tune=fine_tune,
            version=version,
        )

    @classmethod
    def of(cls, identity: str, metadata: Mapping[str, Any], shapes: Shapes) -> ModelName:
        """The name of a source: what its own ``general.*`` keys say, or else what it is called.

        Args:
            identity: what it is called, ``owner/Name-7B-Chat``.
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

    def file_name(self, encoding: str) -> str:
        """The file's name when its weights are mostly ``encoding``; only what the convention allows.

        Example:
            >>> ModelName(name="V2 Lite", base_name="V2 Lite", size_label="64x1.5B").file_name("q4_0")
            'V2-Lite-64x1.5B-v1.0-Q4_0.gguf'
        """
        number = re.search(r"\d+(\.\d+)*", self.version or _DEFAULT_VERSION)
        version = f"v{number[0]}" if number else _DEFAULT_VERSION
        parts = [
            _plain(self.base_name) or "model",
            self.size_label,
            _plain(self.fine_tune or ""),
            version,
            encoding.upper(),
        ]
        return "-".join(filter(None, parts)) + ".gguf"

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
    """How the model at ``path`` is called: a hub cache's repository, a folder's name, or a file's without its ending.

    Example:
        >>> model_id(Path("/hub/models--deepseek-ai--DeepSeek-V2-Lite/snapshots/604d56"))
        'deepseek-ai/DeepSeek-V2-Lite'
    """
    for folder in path.parts:
        if found := _HUB_FOLDER.fullmatch(folder):
            return "/".join(filter(None, found.groups()))
    return path.stem if path.suffix == ".gguf" else path.name


def model_card(path: Path) -> dict[str, str]:
    """The licence that a folder's README.md declares in its front matter, as a ``general.*`` key."""
    card = path / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = _FRONT_MATTER_LICENCE.match(text)
    return {"general.license": found[1]} if found else {}


def _parameter_counts(shapes: Shapes) -> tuple[int, int, int, int]:
    """All parameters, those every token uses, those of one expert over all layers, and the number of experts."""
    experts = {name: shape for name, shape in shapes.items() if "_exps." in name}
    total = sum(map(math.prod, shapes.values()))
    routed = sum(map(math.prod, experts.values()))
    n_experts = max((shape[0] for shape in experts.values()), default=0)
    return total, total - routed, routed // max(n_experts, 1), n_experts


def _plain(part: str) -> str:
    return _NOT_IN_A_FILE_NAME.sub("-", part).strip("-")
