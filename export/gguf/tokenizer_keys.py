"""A checkpoint's tokenizer files as the ``tokenizer.*`` metadata of a GGUF, verified by reading it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sprat.errors import TokenizerError
from sprat.runtime.chat.template_files import StoredTemplates
from sprat.runtime.tokenizer.hf_files import TokenizerFiles
from sprat.runtime.tokenizer.tokenizer import Tokenizer
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, Vocabulary

__all__ = ["tokenizer_metadata"]

# Text on which different tokenizers most likely differ: runs of spaces, digits and newlines, contractions, scripts with
# and without spaces, combining marks, joined emoji, control characters
PROBE = (
    "Hello  world,   it's 3.14159 or 1234567!\n\n\tdef f(x):\r\n        return x**2  # we'LL see\n"
    "Ünïcode naïve cafe\u0301 \u1e9e ﬁ 日本語テキスト、中文字符。한국어 ไทย العربية हिन्दी "
    "👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈 \u00a0\u200b\u3000 end \x07\n \n  "
)


def tokenizer_metadata(directory: str | Path) -> dict[str, Any]:
    """The ``tokenizer.*`` keys for a checkpoint directory.

    Arrays are lists of strings, int32 (types) and float32 (scores), padded to the config's ``vocab_size``.

    Raises:
        TokenizerError: there are no tokenizer files; llama.cpp has no pre-tokenizer for it; there are more tokens than
            embedding rows; or the keys, read back, give other ids than the checkpoint's tokenizer.
    """
    files = TokenizerFiles(directory)
    tokenizer = Tokenizer.from_files(files)
    if files.n_rows is not None and tokenizer.vocab_size > files.n_rows:
        raise TokenizerError(
            f"{files.path}: {tokenizer.vocab_size} tokens, but the model has embeddings for {files.n_rows} "
            "(vocab_size in config.json); resize the embeddings, or remove the added tokens"
        )
    metadata = metadata_from_vocabulary(tokenizer.vocabulary)
    if files.tokenizer:
        _verify(tokenizer, metadata, files.path)
        metadata["tokenizer.huggingface.json"] = files.path.read_text(encoding="utf-8")
    return metadata | StoredTemplates.from_files(files).metadata()


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
    metadata["tokenizer.ggml.add_bos_token"] = vocabulary.add_bos
    metadata["tokenizer.ggml.add_space_prefix"] = vocabulary.add_space_prefix
    return metadata


def _special_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Key -> id of the special tokens; additional end tokens use llama.cpp's keys ``eot`` and ``eom``."""
    others = sorted(vocabulary.eog_ids - {vocabulary.eos_id})
    eom = next((index for index in others if vocabulary.tokens[index] == "<|eom_id|>"), None)
    eot = next((index for index in others if index != eom), None)
    ids = {
        "bos": vocabulary.bos_id,
        "eos": vocabulary.eos_id,
        "unknown": vocabulary.unk_id,
        "padding": vocabulary.pad_id,
        "eot": eot,
        "eom": eom,
    }
    return {kind: index for kind, index in ids.items() if index is not None}


def _verify(original: Tokenizer, metadata: dict[str, Any], path: Path) -> None:
    """Compare the ids of a test text from the checkpoint's tokenizer and from one rebuilt from the keys."""
    rebuilt = Tokenizer.from_gguf(metadata)
    expected, found = (tokenizer.encode(PROBE, add_bos=True, parse_special=True) for tokenizer in (original, rebuilt))
    if expected != found:
        at = next(i for i, pair in enumerate(zip([*expected, -1], [*found, -1], strict=False)) if pair[0] != pair[1])
        raise TokenizerError(
            f"{path}: a GGUF cannot express this tokenizer: from token {at} on, a test text becomes "
            f"{found[at : at + 3]}, expected {expected[at : at + 3]}; it may normalize text or add tokens in a way "
            "that llama.cpp does not support: export a model of a supported family"
        )
