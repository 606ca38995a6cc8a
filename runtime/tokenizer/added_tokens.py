"""Added tokens of a checkpoint: tokenizer.json, ``added_tokens_decoder`` in tokenizer_config.json, added_tokens.json.

transformers reads all three, and so does sprat: a token that only one of them names is a token. Where several name it,
the flags of ``added_tokens_decoder`` win, as in transformers; a token that one of them calls special is special.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sprat.errors import TokenizerError

__all__ = ["AddedToken", "add_to_document", "merge_added_tokens", "parse_decoder", "parse_entries", "parse_ids"]

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToken:
    """A token that is found in the text before BPE.

    Attributes:
        id: row of the embedding.
        text: the token.
        special: a control token: structure of a prompt, never text.
        lstrip: whitespace before it belongs to it.
        rstrip: whitespace after it belongs to it.
        single_word: found only where no word character is beside it.
        normalized: searched in the normalized text.
        source: name of the file that defines it, for messages.
    """

    id: int
    text: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
    source: str = ""

    @property
    def has_flags(self) -> bool:
        """Whether a flag changes where it is found; GGUF's token list has no such flags."""
        return self.lstrip or self.rstrip or self.single_word or self.normalized

    def json(self) -> _Json:
        """Its entry in ``added_tokens`` of a tokenizer.json."""
        return {
            "id": self.id,
            "content": self.text,
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": self.normalized,
            "special": self.special,
        }


def parse_entries(entries: Iterable[Mapping[str, Any]], source: str) -> list[AddedToken]:
    """The tokens in ``added_tokens`` of a tokenizer.json.

    Raises:
        TokenizerError: an entry without a text or an integer id.
    """
    return [_token(entry, entry.get("id"), source) for entry in entries]


def parse_decoder(entries: Mapping[str, Mapping[str, Any]], source: str) -> list[AddedToken]:
    """The tokens in ``added_tokens_decoder`` of a tokenizer_config.json: id -> token.

    Raises:
        TokenizerError: a key that is not an id, or an entry without a text.
    """
    return [_token(entry, int(index) if index.isdecimal() else None, source) for index, entry in entries.items()]


def parse_ids(ids: Mapping[str, int], special: Collection[str], source: str) -> list[AddedToken]:
    """The tokens of an added_tokens.json: text -> id. The file has no flags; ``special`` names the control tokens.

    Raises:
        TokenizerError: an id that is not an integer.
    """
    return [_token({"content": text, "special": text in special}, index, source) for text, index in ids.items()]


def merge_added_tokens(*lists: Iterable[AddedToken]) -> list[AddedToken]:
    """All tokens, ordered by id; of several entries for a token the first counts, and whether any is special.

    Raises:
        TokenizerError: two entries give one id two texts, or one text two ids; the message names both files.
    """
    by_id: dict[int, AddedToken] = {}
    by_text: dict[str, AddedToken] = {}
    for token in (token for tokens in lists for token in tokens):
        same_id, same_text = by_id.setdefault(token.id, token), by_text.setdefault(token.text, token)
        if same_id.text != token.text:
            raise TokenizerError(
                f"{token.source}: the added token {token.text!r} has id {token.id}, which is {same_id.text!r} in "
                f"{same_id.source}; correct one of the two"
            )
        if same_text.id != token.id:
            raise TokenizerError(
                f"{token.source}: the added token {token.text!r} has id {token.id}, but {same_text.id} in "
                f"{same_text.source}; correct one of the two"
            )
        if token.special and not same_id.special:
            by_id[token.id] = replace(same_id, special=True)
    return sorted(by_id.values(), key=lambda token: token.id)


def add_to_document(document: _Json, tokens: Iterable[AddedToken]) -> _Json:
    """The tokenizer.json with ``tokens`` as its added tokens, at exactly their ids.

    ``tokenizers`` ignores the ids in ``added_tokens`` and counts on from the vocabulary. So where ids are not
    consecutive, the vocabulary gets the tokens too.
    """
    tokens = list(tokens)
    vocab = document["model"]["vocab"]
    missing = [token for token in tokens if token.text not in vocab]
    if [token.id for token in missing] != list(range(len(vocab), len(vocab) + len(missing))):
        vocab = {**vocab, **{token.text: token.id for token in missing}}
    model = {**document["model"], "vocab": vocab}
    return {**document, "added_tokens": [token.json() for token in tokens], "model": model}


def _token(entry: Mapping[str, Any], index: Any, source: str) -> AddedToken:
    text = entry.get("content")
    if not isinstance(text, str) or not text or not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise TokenizerError(
            f"{source}: not a tokenizer file: found an added token {text!r} with id {index!r}, expected a text and a "
            "row of the embedding; save it again"
        )
    flags = {name: bool(entry.get(name, False)) for name in ("special", "lstrip", "rstrip", "single_word")}
    return AddedToken(id=index, text=text, **flags, normalized=bool(entry.get("normalized", False)), source=source)
