"""Between a Hugging Face ``tokenizer.json`` and a :class:`~sprat.runtime.vocabulary.Vocabulary`, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sprat.errors import TokenizerError
from sprat.runtime.pretokenizers import get_pre_tokenizer, recognize
from sprat.runtime.vocabulary import TokenizerModel, TokenType, Vocabulary, end_ids, looks_special

__all__ = ["TokenizerFiles", "build", "prepare", "read_vocabulary"]

_Json = dict[str, Any]
_SPECIAL = ("bos", "eos", "unk", "pad")
_SPACE = "\u2581"  # SentencePiece's visible space


class TokenizerFiles:
    """What a checkpoint says about reading text: its tokenizer.json, and the configs beside it where they exist."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.tokenizer = self._read(self.path, required=True)
        self.config = self._read(self.path.with_name("tokenizer_config.json"))
        self.generation = self._read(self.path.with_name("generation_config.json"))
        self.model = self._read(self.path.with_name("config.json"))

    @staticmethod
    def _read(path: Path, *, required: bool = False) -> _Json:
        import msgspec

        if not required and not path.is_file():
            return {}
        try:
            value = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise TokenizerError(f"{path}: cannot be read as JSON: {error}") from error
        if not isinstance(value, dict):
            raise TokenizerError(f"{path}: holds a {type(value).__name__}, expected a JSON object.")
        return value

    def special(self, kind: str) -> str:
        """The text of ``bos``, ``eos``, ``unk`` or ``pad``, or ""; the config writes it plainly or as an AddedToken."""
        entry = self.config.get(f"{kind}_token")
        return str(entry.get("content") if isinstance(entry, dict) else entry or "")


def prepare(document: _Json) -> _Json:
    """The same tokenizer with structure marked special, and without padding, truncation and dropout."""
    added = [
        {**token, "special": token["special"] or looks_special(token["content"])} for token in document["added_tokens"]
    ]
    model = {**document["model"], "dropout": None}
    return {**document, "added_tokens": added, "model": model, "padding": None, "truncation": None}


def read_vocabulary(files: TokenizerFiles) -> Vocabulary:
    """The vocabulary of a tokenizer.json, padded to ``vocab_size`` of the config.json beside it.

    Raises:
        TokenizerError: a kind of tokenizer that sprat does not know; a pre-tokenizer that llama.cpp has no name for.
    """
    document = files.tokenizer
    model = _known_model(files)
    texts, types = _tokens(files, model)
    ids = {text: index for index, text in enumerate(texts)}
    added = {token["content"] for token in document.get("added_tokens", [])}
    special = {kind: ids.get(files.special(kind), files.model.get(f"{kind}_token_id")) for kind in _SPECIAL}
    special["eos"] = next(iter(_id_list(special["eos"])), None)
    named = [
        special["eos"],
        *_id_list(files.generation.get("eos_token_id")),
        *_id_list(files.model.get("eos_token_id")),
    ]
    is_spm = model is TokenizerModel.SENTENCEPIECE_BPE
    vocabulary = Vocabulary(
        model=model,
        tokens=texts,
        types=types,
        pre="" if is_spm else _pre_name(files, added),
        merges=[] if is_spm else [_merge(merge) for merge in document["model"]["merges"]],
        scores=_scores(document, texts) if is_spm else [],
        bos_id=special["bos"],
        eos_id=special["eos"],
        unk_id=special["unk"],
        pad_id=special["pad"],
        end_ids=end_ids(texts, types, (index for index in named if index is not None and index < len(texts))),
        add_bos=_adds_bos(files) and special["bos"] is not None,
        add_space_prefix=is_spm and _prefixes_space(document),
    )
    vocabulary.check(str(files.path))
    return vocabulary


def build(vocabulary: Vocabulary) -> _Json:
    """A tokenizer.json that gives the same ids as llama.cpp does with this vocabulary."""
    if vocabulary.model is TokenizerModel.SENTENCEPIECE_BPE:
        return {**_sentencepiece(vocabulary), **_added(vocabulary)}
    pre = get_pre_tokenizer(vocabulary.pre)
    return {
        "version": "1.0",
        "normalizer": {"type": pre.normalizer} if pre.normalizer else None,
        "pre_tokenizer": pre.json(),
        "model": {
            "type": "BPE",
            "ignore_merges": pre.ignore_merges,
            "vocab": {text: index for index, text in enumerate(vocabulary.tokens)},
            "merges": [_parts(merge) for merge in vocabulary.merges],
        },
        **_added(vocabulary),
    }


def _added(vocabulary: Vocabulary) -> _Json:
    structure = (TokenType.CONTROL, TokenType.UNKNOWN)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    entries = [
        {"id": index, "content": text, "special": kind in structure, **flags}
        for index, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in structure or kind is TokenType.USER_DEFINED
    ]
    return {"added_tokens": entries}


def _parts(merge: str) -> list[str]:
    """A merge is cut at its first space, but not at its first character, which may be one."""
    at = merge.find(" ", 1)
    return [merge[:at], merge[at + 1 :]]


def _sentencepiece(vocabulary: Vocabulary) -> _Json:
    """SentencePiece BPE as ranked merges: llama.cpp joins the pair whose token scores highest, leftmost first.

    A rank needs a pair, so each token stands once for every cut of it into two other tokens.
    """
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    usable = {
        t
        for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
        if kind in (TokenType.NORMAL, TokenType.USER_DEFINED)
    }
    cuts = [
        (-vocabulary.scores[ids[text]], at, text)
        for text in usable
        for at in range(1, len(text))
        if text[:at] in usable and text[at:] in usable
    ]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prefix = [{"type": "Prepend", "prepend": _SPACE}] if vocabulary.add_space_prefix else []
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, replace]},
        "pre_tokenizer": None,
        "model": {
            "type": "BPE",
            "unk_token": None if vocabulary.unk_id is None else vocabulary.tokens[vocabulary.unk_id],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": ids,
            "merges": [[text[:at], text[at:]] for _, at, text in sorted(cuts)],
        },
    }


def _known_model(files: TokenizerFiles) -> TokenizerModel:
    model = files.tokenizer.get("model", {})
    if model.get("type") != "BPE":
        raise TokenizerError(
            f"{files.path}: a tokenizer of type {model.get('type')!r}; sprat knows BPE (byte-level or SentencePiece)."
        )
    return TokenizerModel.SENTENCEPIECE_BPE if model.get("byte_fallback") else TokenizerModel.BYTE_LEVEL_BPE


def _tokens(files: TokenizerFiles, model: TokenizerModel) -> tuple[list[str], list[TokenType]]:
    by_id: dict[int, tuple[str, TokenType]] = {}
    for text, index in files.tokenizer["model"]["vocab"].items():
        is_byte = model is TokenizerModel.SENTENCEPIECE_BPE and len(text) == 6 and text.startswith("<0x")
        by_id[index] = (text, TokenType.BYTE if is_byte else TokenType.NORMAL)
    for token in files.tokenizer.get("added_tokens", []):
        text = token["content"]
        structure = token["special"] or looks_special(text)
        by_id[token["id"]] = (text, TokenType.CONTROL if structure else TokenType.USER_DEFINED)
    unk = files.tokenizer["model"].get("unk_token")
    size = max(max(by_id, default=-1) + 1, int(files.model.get("vocab_size", 0)))
    rows = [by_id.get(index, (f"[PAD{index}]", TokenType.UNUSED)) for index in range(size)]
    types = [
        TokenType.UNKNOWN if text == unk and model is TokenizerModel.SENTENCEPIECE_BPE else kind for text, kind in rows
    ]
    return [text for text, _ in rows], types


def _pre_name(files: TokenizerFiles, added: set[str]) -> str:
    row = recognize(files.tokenizer.get("pre_tokenizer"))
    if row is None:
        raise TokenizerError(
            f"{files.path}: its pre-tokenizer is none of those that sprat can name for llama.cpp "
            "(sprat/runtime/pretokenizers.py lists them). Export a model of a supported family, or add a row there."
        )
    return "deepseek-r1-qwen" if row.name == "qwen2" and "<｜begin▁of▁sentence｜>" in added else row.name


def _merge(merge: str | list[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(part.replace(" ", "\u0120") for part in merge)


def _scores(document: _Json, texts: list[str]) -> list[float]:
    """Scores that order tokens as the merges do: the earlier a token is merged, the higher."""
    rank: dict[str, int] = {}
    for index, merge in enumerate(document["model"]["merges"]):
        rank.setdefault("".join(_parts(merge) if isinstance(merge, str) else merge), index)
    return [-float(rank[text]) if text in rank else -float(len(rank)) - 1000.0 for text in texts]


def _id_list(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _adds_bos(files: TokenizerFiles) -> bool:
    """What the config says; without it, whether the post-processor puts a special token first."""
    if isinstance(said := files.config.get("add_bos_token"), bool):
        return said
    return any(_puts_bos_first(step) for step in _processors(files.tokenizer.get("post_processor") or {}))


def _processors(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(entry["processors"]) if entry.get("type") == "Sequence" else [entry]


def _puts_bos_first(step: Mapping[str, Any]) -> bool:
    template = step.get("single") or [{}]
    return step.get("type") == "TemplateProcessing" and "SpecialToken" in template[0]


def _prefixes_space(document: _Json) -> bool:
    normalizer = document.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    pre = document.get("pre_tokenizer") or {}
    metaspace = pre.get("type") == "Metaspace" and pre.get("prepend_scheme", "always") != "never"
    return metaspace or any(step.get("type") == "Prepend" for step in steps)
