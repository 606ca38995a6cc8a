"""The ``tokenizers`` engine of a tokenizer.json, set to encode special tokens in a text as plain text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sprat.errors import TokenizerError

__all__ = ["LibraryEngine", "bpe_model", "engine_of", "library_errors"]

_Json = dict[str, Any]
_OPTIONS = (
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
_ADDED_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


class LibraryEngine:
    """Text to ids; special tokens in the text are encoded as plain text.

    Args:
        document: a tokenizer.json, as :func:`~sprat.runtime.tokenizer.hf_json.prepare` returns it.
    """

    def __init__(self, document: _Json) -> None:
        self._engine = engine_of(document)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without a BOS."""
        ids: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        return ids


def engine_of(document: _Json) -> Any:
    """The library's own engine of a prepared document."""
    merges = document["model"].get("merges") or []
    is_listed = document["model"].get("type") == "BPE" and not (merges and isinstance(merges[0], str))
    engine = _in_parts(document, merges) if is_listed else _from_json(document)
    engine.encode_special_tokens = True
    return engine


def bpe_model(settings: Mapping[str, Any], vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """The library's BPE with the settings of a document's ``model``, and with other tokens and merges."""
    import tokenizers

    options = {name: settings[name] for name in _OPTIONS if settings.get(name) is not None}
    return tokenizers.models.BPE(vocab, merges, **options)


@contextlib.contextmanager
def library_errors(problem: str) -> Iterator[None]:
    """Turn every error of the library into a TokenizerError; where its Rust code panics, that is no Exception."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerError(f"{problem} ({error}); convert the model again") from error
        raise


def _from_json(document: _Json) -> Any:
    import msgspec
    import tokenizers

    return tokenizers.Tokenizer.from_buffer(msgspec.json.encode(document))


def _in_parts(document: _Json, merges: Sequence[Sequence[str]]) -> Any:
    """The same engine as :func:`_from_json`, in half the time with 100,000 merges: the library parses them slowly."""
    import tokenizers

    model: _Json = document["model"]
    engine = _from_json({**document, "added_tokens": [], "model": {**model, "vocab": {}, "merges": []}})
    engine.model = bpe_model(model, model["vocab"], [(left, right) for left, right in merges])
    added = ({name: entry[name] for name in _ADDED_FIELDS} for entry in document["added_tokens"])
    engine.add_tokens([tokenizers.AddedToken(**entry) for entry in added])
    return engine
