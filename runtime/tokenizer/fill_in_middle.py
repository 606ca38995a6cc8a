"""The tokens around a prompt of fill-in-the-middle: the model continues between a prefix and a suffix (code models)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import msgspec

__all__ = ["FillInMiddle"]

# By llama.cpp's keys; texts of DeepSeek-Coder, Qwen2.5-Coder, StarCoder and Granite, by which llama.cpp finds them too
_TEXTS = {
    "fim_pre": ("<｜fim▁begin｜>", "<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>"),
    "fim_suf": ("<｜fim▁hole｜>", "<|fim_suffix|>", "<fim_suffix>", "<fim-suffix>"),
    "fim_mid": ("<｜fim▁end｜>", "<|fim_middle|>", "<fim_middle>", "<fim-middle>"),
}


class FillInMiddle(msgspec.Struct, frozen=True):
    """Ids of the tokens before the prefix, before the suffix, and before what the model fills in."""

    prefix: int
    suffix: int
    middle: int

    @classmethod
    def find(cls, known: Mapping[str, int], id_of_key: Callable[[str], int | None] = lambda _key: None) -> Self | None:
        """The tokens that a file names, otherwise those with a known text; ``None`` unless there are all three.

        Args:
            known: text -> id of the vocabulary.
            id_of_key: id of the keys ``fim_pre``, ``fim_suf`` and ``fim_mid``, or ``None``.
        """
        by_text = {key: max(known.get(text, -1) for text in texts) for key, texts in _TEXTS.items()}
        found = {key: index for key, index in by_text.items() if index >= 0}
        ids = [found.get(key) if (named := id_of_key(key)) is None else named for key in _TEXTS]
        prefix, suffix, middle = ids
        return None if prefix is None or suffix is None or middle is None else cls(prefix, suffix, middle)

    def keys(self) -> Mapping[str, int]:
        """llama.cpp's names of the ids."""
        return dict(zip(_TEXTS, (self.prefix, self.suffix, self.middle), strict=True))

    def parts(self, before: str, after: str) -> list[str | int]:
        """The prompt that asks for the text between ``before`` and ``after``: token ids, and plain text."""
        return [self.prefix, before, self.suffix, after, self.middle]
