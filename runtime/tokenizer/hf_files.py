"""Reads a checkpoint's tokenizer files into a :class:`~sprat.runtime.tokenizer.vocabulary.Vocabulary`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sprat.errors import TokenizerError
from sprat.files import DocumentError, parse_json, read_input
from sprat.runtime.tokenizer.added_tokens import (
    AddedToken,
    add_to_document,
    merge_added_tokens,
    parse_decoder,
    parse_entries,
    parse_ids,
)
from sprat.runtime.tokenizer.known_steps import check_steps
from sprat.runtime.tokenizer.pretokenizers import recognize
from sprat.runtime.tokenizer.sentencepiece import read_sentencepiece
from sprat.runtime.tokenizer.tiktoken import TIKTOKEN_NAME, is_tiktoken, read_tiktoken, reserved_tokens
from sprat.runtime.tokenizer.vocabulary import (
    TokenizerModel,
    TokenType,
    Vocabulary,
    checked_size,
    eog_ids,
    looks_special,
    split_merge,
)

__all__ = ["TokenizerFiles", "has_tokenizer", "read_generation_config", "read_vocabulary", "unknown_ends"]

_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", TIKTOKEN_NAME)  # the first has most
_Json = dict[str, Any]
_SPECIAL = ("bos", "eos", "unk", "pad")
_KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_STANDARD = tuple(f"{kind}_token" for kind in _KINDS)
_CONFIG, _SPECIAL_MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_MODEL, _GENERATION = "config.json", "generation_config.json"
# llama.cpp's names for a pre-tokenizer that differ by the model: name, pre-tokenizer, a token that the model has
_NAMED_BY_TOKEN = (
    ("deepseek-r1-qwen", "qwen2", "<｜begin▁of▁sentence｜>"),
    ("gigachat", "gpt-2", "<|role_sep|>"),
    ("kanana2", "gpt-4o", "<|begin_of_text|>"),
)


class TokenizerFiles:
    """A tokenizer.json, tokenizer.model or tiktoken.model, and the configs in the same folder, if they exist.

    Args:
        path: the file, or its folder.
        n_rows: rows of the embedding, used when config.json does not say.

    Attributes:
        path: the file.
        tokenizer: the tokenizer.json; empty for a ``.model``.
        added: the added tokens of all files; :func:`read_vocabulary` adds those that have no id in any file.

    Raises:
        TokenizerError: there is no tokenizer, a config is not a JSON object, or files name different added tokens.
    """

    def __init__(self, path: str | Path, n_rows: int | None = None) -> None:
        self.path = _find(Path(path))
        self.tokenizer = _read(self.path) if self.path.suffix == ".json" else {}  # empty for a .model
        self.config = _read(self.path.with_name(_CONFIG))
        self.special_map = _read(self.path.with_name(_SPECIAL_MAP))
        self.generation = read_generation_config(self.path.parent)
        self.model = _read(self.path.with_name(_MODEL))
        self._n_rows = n_rows
        with _not_a_tokenizer(self.path):
            self.added = self._added_tokens()

    @property
    def document(self) -> _Json:
        """The tokenizer.json with the added tokens of all files; empty for a ``.model``."""
        return add_to_document(self.tokenizer, self.added) if self.tokenizer else {}

    @property
    def n_rows(self) -> int | None:
        """Rows of the embedding, if known."""
        rows = self.model.get("vocab_size")
        return rows if isinstance(rows, int) else self._n_rows

    def special(self, kind: str) -> str:
        """The text of ``bos``, ``eos``, ``unk`` or ``pad``, or ""; the config holds a string or an AddedToken."""
        name = f"{kind}_token"
        return _content(self.config[name] if name in self.config else self.special_map.get(name))

    def special_names(self) -> dict[str, str]:
        """Name -> text of the special tokens that have a name, such as ``bos_token``, as transformers collects them."""
        entries = self.config if "added_tokens_decoder" in self.config else {**self.config, **self.special_map}
        extra, specific = (entries.get(f"{kind}_special_tokens") for kind in ("extra", "model_specific"))
        own = {name: entry for name, entry in entries.items() if name.endswith("_token") and name not in _STANDARD}
        own |= extra if isinstance(extra, dict) else {}
        if not any(map(_content, own.values())) and isinstance(specific, dict):
            own = specific
        standard = {name: entries.get(name) for name in _STANDARD}
        return {name: text for name, entry in (standard | own).items() if (text := _content(entry))}

    def special_texts(self) -> list[str]:
        """The texts of all tokens that the configs call special, in transformers' order."""
        lists = [
            config.get(name)
            for config in (self.config, self.special_map)
            for name in ("additional_special_tokens", "extra_special_tokens")
        ]
        unnamed = [_content(entry) for entries in lists if isinstance(entries, list) for entry in entries]
        texts = [*map(self.special, _KINDS), *self.special_names().values(), *unnamed]
        return [text for text in dict.fromkeys(texts) if text]

    def _added_tokens(self) -> list[AddedToken]:
        stored = parse_entries(self.tokenizer.get("added_tokens") or [], self.path.name)
        tokens = merge_added_tokens(
            parse_decoder(self.config.get("added_tokens_decoder") or {}, _CONFIG),
            stored,
            parse_ids(_read(self.path.with_name(_ADDED)), self.special_texts(), _ADDED),
        )
        named = set(self.special_names().values()).difference(token.text for token in stored)
        return [dataclasses.replace(token, special=token.special or token.text in named) for token in tokens]


def read_vocabulary(files: TokenizerFiles) -> Vocabulary:
    """The vocabulary of a checkpoint, padded to the rows of its embedding.

    Raises:
        TokenizerError: an unsupported type of tokenizer, a pre-tokenizer that llama.cpp has no name for, a token beyond
            the rows of the embedding, or a file that is not a tokenizer.
    """
    with _not_a_tokenizer(files.path):
        read = _from_json if files.tokenizer else _from_tiktoken if files.path.name == TIKTOKEN_NAME else _from_spm
        vocabulary = read(files)
        files.added += _without_id(files, vocabulary)
        vocabulary = _finish(files, vocabulary)
    vocabulary.check(str(files.path))
    return vocabulary


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has a vocabulary, in any of the files that :func:`read_vocabulary` reads."""
    return any((folder / name).is_file() for name in _VOCABULARY_FILES)


def read_generation_config(folder: Path) -> _Json:
    """The generation_config.json of a folder, with or without a tokenizer; empty if it does not exist."""
    return _read(folder / _GENERATION)


def _find(path: Path) -> Path:
    """The tokenizer's file; tokenizer.json is preferred, since it holds more than the others."""
    for file in (path, *(path / name for name in _VOCABULARY_FILES)):
        if file.is_file():
            return file
    raise TokenizerError(
        f"{path}: neither tokenizer.json, tokenizer.model nor {TIKTOKEN_NAME} found; save the tokenizer in the fast "
        "format first with AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
    )


def _read(path: Path) -> _Json:
    """The JSON object in a file; empty if the file does not exist."""
    if not path.is_file():
        return {}
    try:
        value = parse_json(read_input(path))
    except (OSError, DocumentError) as error:
        raise TokenizerError(f"{path}: not valid JSON ({error}); download or save it again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: a JSON {type(value).__name__}, expected an object; download or save it again")
    return value


def _without_id(files: TokenizerFiles, vocabulary: Vocabulary) -> list[AddedToken]:
    """Special tokens that the configs name and no file gives an id: transformers gives them the next ones.

    Those that would have no row in the embedding are left out: most are padding tokens, which generation never needs.
    """
    known = {*vocabulary.tokens, *(token.text for token in files.added)}
    first = max([len(vocabulary) - 1, *(token.id for token in files.added)]) + 1
    texts = [text for text in files.special_texts() if text not in known]
    found = [AddedToken(id=index, text=text, source=_CONFIG) for index, text in enumerate(texts, first)]
    return [token for token in found if files.n_rows is not None and token.id < files.n_rows]


def _from_spm(files: TokenizerFiles) -> Vocabulary:
    if is_tiktoken(files.path.read_bytes()[:4096]):
        raise TokenizerError(
            f"{files.path}: a tiktoken vocabulary without its pre-tokenizer; save the tokenizer in the fast format "
            "first with AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    vocabulary = read_sentencepiece(files.path)
    prefix = vocabulary.add_space_prefix and files.config.get("add_prefix_space") is not False
    first = prefix and files.config.get("legacy") is not True  # transformers: legacy prefixes all text between tokens
    return dataclasses.replace(vocabulary, add_space_prefix=prefix, prefix_first_only=first)


def _from_tiktoken(files: TokenizerFiles) -> Vocabulary:
    vocabulary = read_tiktoken(files.path)
    files.added = merge_added_tokens(files.added, reserved_tokens(len(vocabulary), files.n_rows, files.added))
    return vocabulary


def _from_json(files: TokenizerFiles) -> Vocabulary:
    model = _known_model(files)
    check_steps(files.tokenizer, files.path)
    texts, types = _tokens(files, model)
    is_spm = model is TokenizerModel.SENTENCEPIECE_BPE
    merges = files.tokenizer["model"]["merges"]
    return Vocabulary(
        model=model,
        tokens=texts,
        types=types,
        pre="" if is_spm else _pre_name(files),
        merges=[] if is_spm else [_merge(merge) for merge in merges],
        scores=_scores(merges, texts) if is_spm else [],
        add_bos=any(_prepends_special(step) for step in _processors(files.tokenizer.get("post_processor") or {})),
        add_space_prefix=is_spm and _prefixes_space(files.tokenizer),
    )


def _finish(files: TokenizerFiles, vocabulary: Vocabulary) -> Vocabulary:
    """Add what the configs say: added tokens, padding to the rows of the embedding, special ids."""
    texts, types, scores = _with_added(files, vocabulary)
    ids = {text: index for index, text in enumerate(texts)}
    named = {kind: _known_ids(files.model, f"{kind}_token_id", texts, _MODEL) for kind in _SPECIAL}
    own = {kind: getattr(vocabulary, f"{kind}_id") for kind in _SPECIAL}
    special = {
        kind: ids.get(files.special(kind), next(iter(named[kind]), None) if own[kind] is None else own[kind])
        for kind in _SPECIAL
    }
    ends = [special["eos"], *named["eos"], *_known_ids(files.generation, "eos_token_id", texts, _GENERATION)]
    add_bos = files.config.get("add_bos_token")
    return dataclasses.replace(
        vocabulary,
        tokens=texts,
        types=types,
        scores=scores,
        ids=ids,
        bos_id=special["bos"],
        eos_id=special["eos"],
        unk_id=special["unk"],
        pad_id=special["pad"],
        eog_ids=eog_ids(ids, types, ends),
        add_bos=(add_bos if isinstance(add_bos, bool) else vocabulary.add_bos) and special["bos"] is not None,
    )


def _with_added(files: TokenizerFiles, vocabulary: Vocabulary) -> tuple[list[str], list[TokenType], list[float]]:
    """Texts, types and scores with the added tokens, padded to the rows of the embedding."""
    by_id = dict(enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True)))
    for token in files.added:
        text, kind = by_id.get(token.id, (token.text, TokenType.UNUSED))
        if text != token.text and kind is not TokenType.UNUSED and files.tokenizer:
            raise TokenizerError(
                f"{token.source}: the added token {token.text!r} has id {token.id}, which is {text!r} in the "
                f"vocabulary of {files.path.name}; correct one of the two"
            )
        is_control = token.special or looks_special(token.text)
        added_kind = TokenType.CONTROL if is_control else TokenType.USER_DEFINED
        by_id[token.id] = (token.text, TokenType.UNKNOWN if kind is TokenType.UNKNOWN else added_kind)
    _check_rows(files, by_id)
    size = checked_size(max(max(by_id, default=-1) + 1, files.n_rows or 0), files.path)
    rows = [by_id.get(index, (f"[PAD{index}]", TokenType.UNUSED)) for index in range(size)]
    scores = vocabulary.scores and [*vocabulary.scores, *[min(vocabulary.scores) - 1000] * (size - len(vocabulary))]
    return [text for text, _ in rows], [kind for _, kind in rows], scores


def _check_rows(files: TokenizerFiles, by_id: Mapping[int, tuple[str, TokenType]]) -> None:
    """Every token needs a row of the embedding."""
    if files.n_rows is None:
        return
    beyond = sorted(index for index in by_id if index >= files.n_rows)
    if beyond:
        sources = {token.id: token.source for token in files.added}
        first = ", ".join(
            f"{by_id[index][0]!r} with id {index} in {sources.get(index, files.path.name)}" for index in beyond[:3]
        )
        raise TokenizerError(
            f"{files.path.parent}: {len(beyond)} tokens have no row in the embedding, which has {files.n_rows} "
            f"(vocab_size in config.json): {first}; resize the embeddings, or remove the tokens"
        )


def _known_model(files: TokenizerFiles) -> TokenizerModel:
    """The kind of BPE."""
    model = files.tokenizer.get("model", {})
    if model.get("type") != "BPE":
        raise TokenizerError(
            f"{files.path}: tokenizer type {model.get('type')!r}, expected 'BPE' (byte-level or SentencePiece)"
        )
    return TokenizerModel.SENTENCEPIECE_BPE if model.get("byte_fallback") else TokenizerModel.BYTE_LEVEL_BPE


def _tokens(files: TokenizerFiles, model: TokenizerModel) -> tuple[list[str], list[TokenType]]:
    """Texts and types of the vocabulary, without added tokens."""
    by_id: dict[int, str] = {}
    for text, index in files.tokenizer["model"]["vocab"].items():
        if (other := by_id.setdefault(index, text)) != text:
            raise TokenizerError(
                f"{files.path}: the tokens {other!r} and {text!r} both have id {index}; save the tokenizer again"
            )
    unk = files.tokenizer["model"].get("unk_token")
    size = checked_size(max(by_id, default=-1) + 1, files.path)
    texts = [by_id.get(index, f"[PAD{index}]") for index in range(size)]
    types = [TokenType.NORMAL if index in by_id else TokenType.UNUSED for index in range(size)]
    if model is TokenizerModel.SENTENCEPIECE_BPE:
        for index, text in enumerate(texts):
            if text == unk:
                types[index] = TokenType.UNKNOWN
            elif len(text) == 6 and text.startswith("<0x"):
                types[index] = TokenType.BYTE
    return texts, types


def _pre_name(files: TokenizerFiles) -> str:
    ignores = bool(files.tokenizer["model"].get("ignore_merges"))
    known = recognize(files.tokenizer.get("pre_tokenizer"), ignore_merges=ignores)
    assert known is not None, "check_steps refuses others"
    added = {token.text.rstrip() for token in files.added}
    return next((name for name, base, text in _NAMED_BY_TOKEN if base == known.name and text in added), known.name)


def _merge(merge: str | list[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(part.replace(" ", "\u0120") for part in merge)


def _scores(merges: Sequence[str | list[str]], texts: list[str]) -> list[float]:
    """Scores with the order of the merges: the earlier a token is merged, the higher its score."""
    rank: dict[str, int] = {}
    for index, merge in enumerate(merges):
        rank.setdefault("".join(split_merge(merge) if isinstance(merge, str) else merge), index)
    return [-float(rank[text]) if text in rank else -float(len(rank)) - 1000.0 for text in texts]


def _content(entry: Any) -> str:
    """The text of a special token in a config, which is a string or an AddedToken; "" for anything else."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else ""


@contextlib.contextmanager
def _not_a_tokenizer(path: Path) -> Iterator[None]:
    """Turn the errors of a document with another structure into a TokenizerError."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
        raise TokenizerError(f"{path}: not a tokenizer ({error!r}); save it again") from error


def unknown_ends(config: Mapping[str, Any], n_rows: int, source: str) -> list[int]:
    """The ids of ``eos_token_id`` in the config ``source`` that no token of a model with ``n_rows`` embeddings has.

    Raises:
        TokenizerError: the entry is neither an id nor a list of ids.
    """
    return [index for index in _ids(config, "eos_token_id", source) if not 0 <= index < n_rows]


def _known_ids(config: Mapping[str, Any], name: str, texts: list[str], source: str) -> list[int]:
    """The ids in an entry of the config ``source``; one that no token has, as -1, means none."""
    return [index for index in _ids(config, name, source) if 0 <= index < len(texts)]


def _ids(config: Mapping[str, Any], name: str, source: str) -> list[int]:
    """The ids in a config entry, which is an id or a list of ids."""
    value = config.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if wrong := [index for index in values if type(index) is not int]:
        raise TokenizerError(
            f"{source}: {name} is {wrong[0]!r}; expected the id of a token, or a list of ids: correct the file"
        )
    return values


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
