"""The tokenizer files of a bundle: copied from the checkpoint, or rebuilt from a GGUF's keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sprat.export.source.checkpoint import Checkpoint
from sprat.runtime.tokenizer.hf_json import build
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, Vocabulary

__all__ = ["tokenizer_texts"]

_EMBEDDED = {"tokenizer.json": "tokenizer.huggingface.json", "chat_template.jinja": "tokenizer.chat_template"}


def tokenizer_texts(checkpoint: Checkpoint, keys: Mapping[str, Any], *, complete: bool) -> dict[str, bytes]:
    """File name -> content.

    Args:
        checkpoint: its tokenizer files are copied unchanged.
        keys: the ``tokenizer.*`` keys of a GGUF, which may contain some of the files.
        complete: rebuild files that the keys do not contain, for artifacts without a tokenizer inside.

    Raises:
        TokenizerError: the tokenizer cannot be rebuilt.
    """
    texts = {name: str(keys[key]).encode() for name, key in _EMBEDDED.items() if key in keys}
    texts |= {name: path.read_bytes() for name, path in checkpoint.tokenizer_files.items()}
    return (_rebuilt(keys) if complete else {}) | texts


def _rebuilt(keys: Mapping[str, Any]) -> dict[str, bytes]:
    if keys.get("tokenizer.ggml.model", TokenizerModel.NONE) == TokenizerModel.NONE:
        return {}
    vocabulary = Vocabulary.from_metadata(keys)
    ids = {"bos_token": vocabulary.bos_id, "eos_token": vocabulary.eos_id, "pad_token": vocabulary.pad_id}
    config: dict[str, Any] = {name: vocabulary.tokens[index] for name, index in ids.items() if index is not None}
    config |= {"add_bos_token": vocabulary.add_bos, "tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        "tokenizer.json": msgspec.json.encode(build(vocabulary)),
        "tokenizer_config.json": msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n",
    }
