"""A checkpoint's tokenizer files as the ``tokenizer.*`` metadata of a GGUF, verified by reading it back."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sprat.errors import TokenizerError
from sprat.runtime.chat.template_files import StoredTemplates
from sprat.runtime.tokenizer.added_tokens import AddedToken
from sprat.runtime.tokenizer.hf_files import TokenizerFiles
from sprat.runtime.tokenizer.hf_json import build, composes_only
from sprat.runtime.tokenizer.tokenizer import Tokenizer
from sprat.runtime.tokenizer.vocabulary import EOG_KEY, PREFIX_KEY, TokenizerModel, Vocabulary, is_known_eog

__all__ = ["metadata_from_vocabulary", "tokenizer_metadata", "valid_keys"]

# Text on which different tokenizers most likely differ: runs of spaces, digits and newlines, contractions, scripts with
# and without spaces, combining marks, joined emoji, control characters
PROBE = (
    "Hello  world,   it's 3.14159 or 1234567!\n\n\tdef f(x):\r\n        return x**2  # we'LL see\n"
    "Ünïcode naïve cafe\u0301 \u1e9e ﬁ 日本語テキスト、中文字符。한국어 ไทย العربية हिन्दी "
    "👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈 \u00a0\u200b\u3000 end \x07\n \n  "
)


def tokenizer_metadata(directory: str | Path, n_rows: int | None = None) -> dict[str, Any]:
    """The ``tokenizer.*`` keys for a checkpoint directory.

    Arrays are lists of strings, int32 (types) and float32 (scores), padded to the config's ``vocab_size``, or to
    ``n_rows`` where config.json does not say.

    Raises:
        TokenizerError: there are no tokenizer files; llama.cpp has no pre-tokenizer for it; there are more tokens than
            embedding rows; or the keys, read back, give other ids than the checkpoint's tokenizer.
    """
    files = TokenizerFiles(directory, n_rows)
    tokenizer = Tokenizer.from_files(files)
    metadata = metadata_from_vocabulary(tokenizer.vocabulary)
    _verify(tokenizer, metadata, files)
    if document := files.document or _flagged(tokenizer.vocabulary, files):
        metadata["tokenizer.huggingface.json"] = _text(document, files)
        _verify(tokenizer, metadata, files, files.added)
    return metadata | StoredTemplates.from_files(files).metadata()


def valid_keys(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The ``tokenizer.*`` keys of a GGUF, without ids that name no token."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    size = len(tokens) if isinstance(tokens, list) else None
    return {
        key: value
        for key, value in metadata.items()
        if key.startswith("tokenizer.") and (size is None or not _is_token_id(key) or 0 <= value < size)
    }


def metadata_from_vocabulary(vocabulary: Vocabulary) -> dict[str, Any]:
    """The ``tokenizer.ggml.*`` keys of a vocabulary, in llama.cpp's order."""
    metadata: dict[str, Any] = {"tokenizer.ggml.model": str(vocabulary.model)}
    if vocabulary.model is TokenizerModel.NONE:
        return metadata
    metadata["tokenizer.ggml.pre"] = vocabulary.pre or "default"
    metadata["tokenizer.ggml.tokens"] = vocabulary.tokens
    if vocabulary.scores:
        metadata["tokenizer.ggml.scores"] = np.asarray(vocabulary.scores, np.float32)
    metadata["tokenizer.ggml.token_type"] = np.asarray(vocabulary.types, np.int32)
    if vocabulary.merges:
        metadata["tokenizer.ggml.merges"] = vocabulary.merges
    metadata |= {f"tokenizer.ggml.{kind}_token_id": index for kind, index in _special_ids(vocabulary).items()}
    if len(vocabulary.eog_ids) > 1:
        metadata[EOG_KEY] = np.asarray(sorted(vocabulary.eog_ids), np.int32)
    metadata["tokenizer.ggml.add_bos_token"] = vocabulary.add_bos
    metadata["tokenizer.ggml.add_space_prefix"] = vocabulary.add_space_prefix
    if vocabulary.prefix_first_only:
        metadata[PREFIX_KEY] = True
    return metadata


def _special_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Key -> id of the special tokens; additional end tokens use llama.cpp's keys ``eot`` and ``eom``.

    Of several, ``eot`` names one that llama.cpp does not know by its text.
    """
    tokens = vocabulary.tokens
    others = sorted(vocabulary.eog_ids - {vocabulary.eos_id}, key=lambda index: (is_known_eog(tokens[index]), index))
    eom = next((index for index in others if tokens[index] == "<|eom_id|>"), None)
    eot = next((index for index in others if index != eom), None)
    ids = {
        "bos": vocabulary.bos_id,
        "eos": vocabulary.eos_id,
        "unknown": vocabulary.unk_id,
        "padding": vocabulary.pad_id,
        "eot": eot,
        "eom": eom,
    }
    fim = vocabulary.fill_in_middle
    return {kind: index for kind, index in ids.items() if index is not None} | dict(fim.keys() if fim else {})


def _is_token_id(key: str) -> bool:
    return key.startswith("tokenizer.ggml.") and key.endswith("_token_id")


def _flagged(vocabulary: Vocabulary, files: TokenizerFiles) -> dict[str, Any]:
    """A tokenizer.json for added tokens with flags, which GGUF's token list does not have; empty without such."""
    return build(vocabulary, files.added) if any(token.has_flags for token in files.added) else {}


def _text(document: dict[str, Any], files: TokenizerFiles) -> str:
    """The file's own text where nothing was added to it."""
    if document == files.tokenizer:
        return files.path.read_text(encoding="utf-8-sig")
    return msgspec.json.encode(document).decode()


def _verify(
    original: Tokenizer, metadata: dict[str, Any], files: TokenizerFiles, added: Iterable[AddedToken] = ()
) -> None:
    """Compare the ids of a test text from the checkpoint's tokenizer and from one rebuilt from the keys.

    llama.cpp does not normalize. So the text is composed already (NFC) where the file does not normalize or composes.
    """
    rebuilt = Tokenizer.from_gguf(metadata)
    text = unicodedata.normalize("NFC", PROBE) if composes_only(files.tokenizer) else PROBE
    text += "".join(f" a {token.text} b{token.text}" for token in added)
    expected, found = (tokenizer.encode(text, add_bos=True, parse_special=True) for tokenizer in (original, rebuilt))
    if expected != found:
        at = next(i for i, pair in enumerate(zip([*expected, -1], [*found, -1], strict=False)) if pair[0] != pair[1])
        raise TokenizerError(
            f"{files.path}: a GGUF cannot express this tokenizer: from token {at} on, a test text becomes "
            f"{found[at : at + 3]}, expected {expected[at : at + 3]}; it may normalize text or add tokens in a way "
            "that llama.cpp does not support: export a model of a supported family"
        )
