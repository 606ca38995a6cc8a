"""The chat template of an export: replaced on request, and tried before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sprat.errors import InputError
from sprat.export.source.checkpoint import Checkpoint
from sprat.files import read_text
from sprat.runtime.chat.check import template_problems
from sprat.runtime.chat.template import DEFAULT_NAME, ChatTemplate
from sprat.runtime.chat.template_files import StoredTemplates, is_template_key
from sprat.runtime.tokenizer.hf_files import TokenizerFiles
from sprat.runtime.tokenizer.vocabulary import TokenizerModel

__all__ = ["replace_template", "template_warnings"]


def replace_template(keys: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """The ``tokenizer.*`` keys with the template in the file ``path`` instead of all others.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
        TemplateError: it is not a template.
    """
    try:
        source = read_text(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the chat template cannot be read ({error}); pass a file in UTF-8") from error
    ChatTemplate(source).check()
    special_tokens = StoredTemplates.from_metadata(keys).special_tokens
    others = {key: value for key, value in keys.items() if not is_template_key(key)}
    return others | StoredTemplates({DEFAULT_NAME: source}, special_tokens).metadata()


def template_warnings(checkpoint: Checkpoint, keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Problems of the chat template in ``keys``, for the manifest; none for a model without a tokenizer."""
    if keys.get("tokenizer.ggml.model", TokenizerModel.NONE) == TokenizerModel.NONE:
        return ()
    stored = StoredTemplates.from_metadata(keys)
    unread = StoredTemplates.from_files(TokenizerFiles(checkpoint.path)).problems if checkpoint.path.is_dir() else ()
    return (*unread, *stored.problems, *template_problems(stored.template()))
