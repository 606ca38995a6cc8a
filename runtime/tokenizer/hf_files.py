"""Reads a checkpoint's tokenizer files into a :class:`~sprat.runtime.tokenizer.vocabulary.Vocabulary`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.pretokenizers import recognize
from sprat.runtime.tokenizer.sentencepiece import read_sentencepiece
from sprat.runtime.tokenizer.vocabulary import (
    TokenizerModel,
    TokenType,
    Vocabulary,
    checked_size,
    eog_ids,
    looks_special,
    split_merge,
)

__all__ = ["TokenizerFiles", "read_vocabulary"]

_Json = dict[str, Any]
_SPECIAL = ("bos", "eos", "unk", "pad")


class TokenizerFiles:
    """A tokenizer.json or tokenizer.model, and the configs in the same folder, if they exist.

    Args:
        path: the file, or its folder.
        n_rows: rows of the embedding, used when config.json does not say.

    Raises:
        TokenizerError: there is no tokenizer, or a config is not a JSON object.
    """

    def __init__(self, path: str | Path, n_rows: int | None = None) -> None:
        self.path = _find(Path(path))
        self.tokenizer = _read(self.path) if self.path.suffix == ".json" else {}  # empty for a tokenizer.model
        self.config = _read(self.path.with_name("tokenizer_config.json"))
        self.special_tokens_map = _read(self.path.with_name("special_tokens_map.json"))
        self.generation = _read(self.path.with_name("generation_config.json"))
        self.model = {"vocab_size": n_rows, **_read(self.path.with_name("config.json"))}

    @property
    def n_rows(self) -> int | None:
        """Rows of the embedding, if known."""
        rows = self.model.get("vocab_size")
        return rows if isinstance(rows, int) else None

    def special(self, kind: str) -> str:
        """The text of ``bos``, ``eos``, ``unk`` or ``pad``, or ""; the config holds a string or an AddedToken."""
        entry = self.config.get(f"{kind}_token")
        return str(entry.get("content") if isinstance(entry, dict) else entry or "")


def read_vocabulary(files: TokenizerFiles) -> Vocabulary:
    """The vocabulary of a checkpoint, padded to the rows of its embedding.

    Raises:
        TokenizerError: an unsupported type of tokenizer, a pre-tokenizer that llama.cpp has no name for, or a file that
            is not a tokenizer.
    """
    try:
        vocabulary = _from_json(files) if files.tokenizer else _from_sentencepiece(files)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise TokenizerError(f"{files.path}: not a tokenizer ({error!r}); save it again") from error
    vocabulary.check(str(files.path))
    return vocabulary


def _find(path: Path) -> Path:
    """The tokenizer's file; tokenizer.json is preferred, since it holds more than tokenizer.model."""
    for file in (path, path / "tokenizer.json", path / "tokenizer.model"):
        if file.is_file():
            return file
    raise TokenizerError(
        f"{path}: neither tokenizer.json nor tokenizer.model found; save the tokenizer in the fast format first "
        "with AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
    )


def _read(path: Path) -> _Json:
    """The JSON object in a file; empty if the file does not exist."""
    import msgspec

    if not path.is_file():
        return {}
    try:
        value = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise TokenizerError(f"{path}: not valid JSON ({error}); download or save it again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: a JSON {type(value).__name__}, expected an object; download or save it again")
    return value


def _from_sentencepiece(files: TokenizerFiles) -> Vocabulary:
    vocabulary = read_sentencepiece(files.path)
    padding = range(len(vocabulary), checked_size(max(len(vocabulary), files.n_rows or 0), files.path))
    return dataclasses.replace(
        vocabulary,
        tokens=[*vocabulary.tokens, *(f"[PAD{index}]" for index in padding)],
        types=[*vocabulary.types, *(TokenType.UNUSED for _ in padding)],
        scores=[*vocabulary.scores, *(0.0 for _ in padding)],
        add_bos=bool(files.config.get("add_bos_token", vocabulary.add_bos)),
    )


def _from_json(files: TokenizerFiles) -> Vocabulary:
    document = files.tokenizer
    model = _known_model(files)
    texts, types = _tokens(files, model)
    ids = {text: index for index, text in enumerate(texts)}
    added = {token["content"] for token in document.get("added_tokens", [])}
    named = {kind: _known_ids(files.model.get(f"{kind}_token_id"), texts) for kind in _SPECIAL}
    special = {kind: ids.get(files.special(kind), next(iter(named[kind]), None)) for kind in _SPECIAL}
    eos = special["eos"]
    ends = [*_known_ids(eos, texts), *named["eos"], *_known_ids(files.generation.get("eos_token_id"), texts)]
    is_spm = model is TokenizerModel.SENTENCEPIECE_BPE
    return Vocabulary(
        model=model,
        tokens=texts,
        types=types,
        pre="" if is_spm else _pre_name(files, added),
        merges=[] if is_spm else [_merge(merge) for merge in document["model"]["merges"]],
        scores=_scores(document, texts) if is_spm else [],
        bos_id=special["bos"],
        eos_id=eos,
        unk_id=special["unk"],
        pad_id=special["pad"],
        eog_ids=eog_ids(texts, types, ends),
        add_bos=_adds_bos(files) and special["bos"] is not None,
        add_space_prefix=is_spm and _prefixes_space(document),
    )


def _known_model(files: TokenizerFiles) -> TokenizerModel:
    model = files.tokenizer.get("model", {})
    if model.get("type") != "BPE":
        raise TokenizerError(
            f"{files.path}: tokenizer type {model.get('type')!r}, expected 'BPE' (byte-level or SentencePiece)"
        )
    return TokenizerModel.SENTENCEPIECE_BPE if model.get("byte_fallback") else TokenizerModel.BYTE_LEVEL_BPE


def _tokens(files: TokenizerFiles, model: TokenizerModel) -> tuple[list[str], list[TokenType]]:
    by_id: dict[int, tuple[str, TokenType]] = {}
    for text, index in files.tokenizer["model"]["vocab"].items():
        is_byte = model is TokenizerModel.SENTENCEPIECE_BPE and len(text) == 6 and text.startswith("<0x")
        by_id[index] = (text, TokenType.BYTE if is_byte else TokenType.NORMAL)
    for token in files.tokenizer.get("added_tokens", []):
        text = token["content"]
        is_control = token["special"] or looks_special(text)
        by_id[token["id"]] = (text, TokenType.CONTROL if is_control else TokenType.USER_DEFINED)
    unk = files.tokenizer["model"].get("unk_token")
    size = checked_size(max(max(by_id, default=-1) + 1, files.n_rows or 0), files.path)
    rows = [by_id.get(index, (f"[PAD{index}]", TokenType.UNUSED)) for index in range(size)]
    types = [
        TokenType.UNKNOWN if text == unk and model is TokenizerModel.SENTENCEPIECE_BPE else kind for text, kind in rows
    ]
    return [text for text, _ in rows], types


def _pre_name(files: TokenizerFiles, added: set[str]) -> str:
    known = recognize(files.tokenizer.get("pre_tokenizer"))
    if known is None:
        raise TokenizerError(
            f"{files.path}: the pre-tokenizer has no name in llama.cpp that sprat knows; export a model of a supported "
            "family, or add the pre-tokenizer to sprat/runtime/tokenizer/pretokenizers.py"
        )
    return "deepseek-r1-qwen" if known.name == "qwen2" and "<｜begin▁of▁sentence｜>" in added else known.name


def _merge(merge: str | list[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(part.replace(" ", "\u0120") for part in merge)


def _scores(document: _Json, texts: list[str]) -> list[float]:
    """Scores with the order of the merges: the earlier a token is merged, the higher its score."""
    rank: dict[str, int] = {}
    for index, merge in enumerate(document["model"]["merges"]):
        rank.setdefault("".join(split_merge(merge) if isinstance(merge, str) else merge), index)
    return [-float(rank[text]) if text in rank else -float(len(rank)) - 1000.0 for text in texts]


def _known_ids(value: Any, texts: list[str]) -> list[int]:
    """The valid ids of a config entry, which is an id or a list of ids; -1 means none."""
    values = value if isinstance(value, list) else [value]
    return [index for index in values if isinstance(index, int) and 0 <= index < len(texts)]


def _adds_bos(files: TokenizerFiles) -> bool:
    """``add_bos_token`` of the config; without it, whether the post-processor adds a special token first."""
    if isinstance(add_bos := files.config.get("add_bos_token"), bool):
        return add_bos
    return any(_prepends_special(step) for step in _processors(files.tokenizer.get("post_processor") or {}))


def _processors(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(entry["processors"]) if entry.get("type") == "Sequence" else [entry]


def _prepends_special(step: Mapping[str, Any]) -> bool:
    template = step.get("single") or [{}]
    return step.get("type") == "TemplateProcessing" and "SpecialToken" in template[0]


def _prefixes_space(document: _Json) -> bool:
    normalizer = document.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    pre = document.get("pre_tokenizer") or {}
    metaspace = pre.get("type") == "Metaspace" and pre.get("prepend_scheme", "always") != "never"
    return metaspace or any(step.get("type") == "Prepend" for step in steps)
