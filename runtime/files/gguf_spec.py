"""The architecture of an open GGUF; a message about its keys names the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sprat.errors import ConfigError, TokenizerError
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.gguf import GGUFFile

__all__ = ["keys_of", "spec_of"]


def spec_of(file: GGUFFile) -> ModelSpec:
    """The architecture in the keys of ``file``, and in its tensors what has no key.

    Raises:
        ConfigError: it is not supported, or keys are missing, unknown or out of range.
    """
    with keys_of(file.path):
        return spec_from_metadata(file.metadata, file)


@contextlib.contextmanager
def keys_of(path: Path) -> Iterator[None]:
    """Name the file in errors about its keys.

    Raises:
        ConfigError: as inside, with the path before its message.
        TokenizerError: likewise.
    """
    try:
        yield
    except (ConfigError, TokenizerError) as error:
        raise type(error)(f"{path}: {error}") from error
