"""A checkpoint's ``config.json``, read as data, never as code; interpreted by :mod:`sprat.runtime.arch.hf_config`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sprat.errors import CheckpointError, ConfigError
from sprat.export.source.recognize.folder_kinds import what_folder
from sprat.files import DocumentError, parse_json, read_input
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["CONFIG", "checkpoint_spec", "config_bytes", "parse_config", "read_config"]

CONFIG = "config.json"
MAX_CONFIG_BYTES = 16 << 20


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """The JSON object in ``folder/name``.

    Raises:
        CheckpointError: the file does not exist or cannot be read.
        ConfigError: it is not a JSON object.
    """
    return parse_config(config_bytes(folder, name), folder / name)


def config_bytes(folder: Path, name: str = CONFIG) -> bytes:
    """The content of ``folder/name``.

    Raises:
        CheckpointError: the file does not exist or cannot be read.
    """
    path = folder / name
    if not path.is_file():
        if problem := what_folder(folder):
            raise CheckpointError(problem)
        raise CheckpointError(f"{folder}: contains no {name}; expected a Hugging Face model directory or a GGUF file")
    try:
        return read_input(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check the file") from error


def parse_config(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in the ``content`` of ``path``.

    Raises:
        ConfigError: it is not a JSON object.
    """
    try:
        config: dict[str, Any] = parse_json(content, dict[str, Any])
    except DocumentError as error:
        raise ConfigError(f"{path}: not a JSON object ({error}); download it again") from error
    return config


def checkpoint_spec(config: Mapping[str, Any], folder: Path, ignore_fields: Collection[str] = ()) -> ModelSpec:
    """The architecture that ``config`` describes.

    Published DeepSeek configs name Python files in ``auto_map``. sprat never runs them: a supported architecture does
    not need them, and an unsupported one is an error that mentions them. ``ignore_fields`` are those of
    :func:`~sprat.runtime.arch.hf_config.spec_from_config`.

    Raises:
        ConfigError: the architecture or a field is not supported.
    """
    try:
        return spec_from_config(config, ignore_fields=ignore_fields)
    except ConfigError as error:
        note = (
            "; the Python files that auto_map names are not run: sprat refuses remote code"
            if "auto_map" in config
            else ""
        )
        raise ConfigError(f"{folder}: {error}{note}") from error
