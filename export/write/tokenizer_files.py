"""The tokenizer files of a bundle: copied from the checkpoint, or rebuilt from a GGUF's keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sprat.export.source.checkpoint import Checkpoint
from sprat.files import parse_json
from sprat.runtime.chat.template_files import template_file
from sprat.runtime.generate.sampling_defaults import config_from_sampling, sampling_from_metadata
from sprat.runtime.tokenizer.hf_json import build
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, Vocabulary

__all__ = ["tokenizer_texts"]

_EMBEDDED = {"tokenizer.json": "tokenizer.huggingface.json"}


def tokenizer_texts(checkpoint: Checkpoint, keys: Mapping[str, Any], *, complete: bool) -> dict[str, bytes]:
    """File name -> content.

    Args:
        checkpoint: its tokenizer files are copied unchanged.
        keys: the ``tokenizer.*`` keys of a GGUF, which may contain some of the files.
        complete: rebuild files that the keys do not contain, for artifacts without a tokenizer inside.

    Raises:
        TokenizerError: the tokenizer cannot be rebuilt.
        ExportError: a file changed since the source was opened.
    """
    copied = checkpoint.tokenizer_files()
    embedded = {name: str(keys[key]).encode() for name, key in _EMBEDDED.items() if key in keys}
    texts = {**copied, **embedded} if "tokenizer.json" in copied or not copied else {**embedded, **copied}
    texts |= {name: str(value).encode() for key, value in keys.items() if (name := template_file(key))}
    return {**_rebuilt(keys), **texts, **_completed(keys, texts)} if complete else texts


def _rebuilt(keys: Mapping[str, Any]) -> dict[str, bytes]:
    if not _has_tokenizer(keys):
        return {}
    return {"tokenizer.json": msgspec.json.encode(build(Vocabulary.from_metadata(keys)))}


def _completed(keys: Mapping[str, Any], texts: Mapping[str, bytes]) -> dict[str, bytes]:
    """The configs with what a reader needs and the checkpoint has elsewhere: special tokens, end tokens, sampling."""
    if not _has_tokenizer(keys):
        return {}
    vocabulary = Vocabulary.from_metadata(keys)
    ids = {"bos": vocabulary.bos_id, "eos": vocabulary.eos_id, "pad": vocabulary.pad_id, "unk": vocabulary.unk_id}
    tokens: dict[str, Any] = {f"{kind}_token": vocabulary.tokens[i] for kind, i in ids.items() if i is not None}
    tokens |= {"add_bos_token": vocabulary.add_bos, "tokenizer_class": "PreTrainedTokenizerFast"}
    generation = config_from_sampling(sampling_from_metadata(keys))
    ends = {"eos_token_id": sorted(vocabulary.eog_ids)} if vocabulary.eog_ids else {}
    files = {"tokenizer_config.json": (tokens, {}), "generation_config.json": (generation, ends)}
    return {
        name: _json({**missing, **_object(texts.get(name, b"{}")), **always})
        for name, (missing, always) in files.items()
    }


def _has_tokenizer(keys: Mapping[str, Any]) -> bool:
    return bool(keys.get("tokenizer.ggml.model", TokenizerModel.NONE) != TokenizerModel.NONE)


def _object(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = parse_json(text, dict[str, Any])
    return found


def _json(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
