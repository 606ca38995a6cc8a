"""Pre-tokenizers by their ``tokenizer.ggml.pre`` names: they split text into words, within which BPE merges bytes.

One entry per name, written as in Hugging Face's ``tokenizer.json``. Sources: the models' published files and
llama.cpp's ``llama-vocab.cpp``. To add a pre-tokenizer, add an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sprat.errors import TokenizerError, unknown_name

__all__ = ["PRE_TOKENIZERS", "PreTokenizer", "get_pre_tokenizer", "recognize"]

_Json = Mapping[str, Any]


class PreTokenizer(msgspec.Struct, frozen=True):
    """A named way to split text into words."""

    name: str
    steps: tuple[_Json, ...]
    normalizer: str | None = None  # applied to the text first; a type of tokenizer.json
    ignore_merges: bool = False  # a word that is in the vocabulary is one token, whatever the merges say
    add_bos: bool = False  # the default for a GGUF without ``add_bos_token``
    aliases: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """The ``pre_tokenizer`` entry of a tokenizer.json."""
        return {"type": "Sequence", "pretokenizers": list(self.steps)}


def _split(regex: str) -> _Json:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _byte_level(*, use_regex: bool) -> _Json:
    """Map bytes to printable characters; with ``use_regex``, after a split by GPT-2's expression."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_MATCHES_ALL = r"|\s+(?!\S)|\s+"  # how the expressions end that leave no text between their matches
_DIGITS: _Json = {"type": "Digits", "individual_digits": True}
_CJK_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

# cased letters of Unicode 12; DeepSeek-LLM's tokenizer.json lists them
_CASED = (
    "A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)


def _like_cl100k(digits: str) -> str:
    """GPT-4's expression with the pattern of digits as a parameter: Llama 3 matches up to three, Qwen2 one."""
    return (
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def _like_o200k(words: str, punctuation: str, digits: str = r"\p{N}{1,3}") -> str:
    """GPT-4o's expression: words split where case changes, digits in groups of three.

    Args:
        words: intersected with the letters of a word.
        punctuation: characters that follow punctuation, besides line ends.
        digits: pattern of digits.
    """
    upper = rf"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{words}]"
    lower = rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{words}]"
    start, end = r"[^\r\n\p{L}\p{N}]?", f"{_CONTRACTIONS}?"
    return (
        rf"{start}{upper}*{lower}+{end}|{start}{upper}+{lower}*{end}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n{punctuation}]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_QWEN2 = (_split(_like_cl100k(r"\p{N}")), _byte_level(use_regex=False))
_LLAMA3 = (_split(_like_cl100k(r"\p{N}{1,3}")), _byte_level(use_regex=False))
_GPT2 = (_byte_level(use_regex=True),)
_GPT4O = (_split(_like_o200k("", "/")), _byte_level(use_regex=False))

PRE_TOKENIZERS: tuple[PreTokenizer, ...] = (
    PreTokenizer(
        "deepseek-llm",  # DeepSeek-LLM, V2, V2-Lite, V2.5
        (
            _split(r"[\r\n]"),
            _split(rf"\s?[{_CASED}]+"),
            _split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
            _split(r"\s+$"),
            _split(_CJK_HANGUL),
            _DIGITS,
            _byte_level(use_regex=False),
        ),
    ),
    PreTokenizer(
        "deepseek-coder",
        (
            _split(r"[\r\n]"),
            _split(r"\s?\p{L}+"),
            _split(r"\s?\p{P}+"),
            _split(_CJK_HANGUL),
            _DIGITS,
            _byte_level(use_regex=False),
        ),
    ),
    PreTokenizer(
        "deepseek-v3",  # V3, R1
        (
            _split(r"\p{N}{1,3}"),
            _split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
            _split(
                r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
                r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                r"| ?[\p{P}\p{S}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            _byte_level(use_regex=False),
        ),
    ),
    PreTokenizer("qwen2", _QWEN2, normalizer="NFC"),
    PreTokenizer("deepseek-r1-qwen", _QWEN2, normalizer="NFC"),  # like qwen2, with DeepSeek's special tokens and a BOS
    PreTokenizer("llama-bpe", _LLAMA3, ignore_merges=True, add_bos=True, aliases=("llama3", "llama-v3")),
    PreTokenizer("glm4", _LLAMA3, aliases=("chatglm-bpe",)),
    PreTokenizer("smollm", (_DIGITS, _byte_level(use_regex=True))),
    PreTokenizer("gpt-2", _GPT2, aliases=("phi-2",)),
    PreTokenizer("gigachat", _GPT2),
    PreTokenizer("gpt-4o", _GPT4O, aliases=("llama4",)),
    PreTokenizer("kanana2", _GPT4O),
    PreTokenizer(
        "youtu",  # Youtu-LLM
        (
            _split(
                "[\uac00-\ud7a3\u3131-\u318e]+"
                "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
                "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
            ),
            _split(_like_o200k("", "/", r"\p{N}")),
            _byte_level(use_regex=False),
        ),
        ignore_merges=True,
    ),
    PreTokenizer(
        "kimi-k2",  # Moonlight, Kimi; tiktoken takes a word that is in the vocabulary whole
        (_split(r"[\p{Han}]+|" + _like_o200k(r"&&[^\p{Han}]", "")), _byte_level(use_regex=False)),
        ignore_merges=True,
    ),
    PreTokenizer(
        "default",  # also used for a GGUF without the key
        (
            _split(r"[\p{P}\$\+<=>\^~\|]+"),
            _split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
            _split(r"\p{N}+"),
            _split("[0-9][0-9][0-9]"),
            _byte_level(use_regex=False),
        ),
    ),
)

_BY_NAME = {name: known for known in PRE_TOKENIZERS for name in (known.name, *known.aliases)}


def get_pre_tokenizer(name: str) -> PreTokenizer:
    """The pre-tokenizer called ``name``.

    Raises:
        TokenizerError: the name is unknown; the message proposes the nearest.
    """
    if name not in _BY_NAME:
        raise TokenizerError(unknown_name("pre-tokenizer (tokenizer.ggml.pre)", name, _BY_NAME))
    return _BY_NAME[name]


def recognize(pre_tokenizer: _Json | None, *, ignore_merges: bool = False) -> PreTokenizer | None:
    """The pre-tokenizer with the same steps as this ``pre_tokenizer`` entry of a tokenizer.json, or ``None``.

    Of several, the first whose ``ignore_merges`` is that of the file, else the first.
    """
    steps = _canonical(pre_tokenizer)
    found = [known for known in PRE_TOKENIZERS if _canonical(known.json()) == steps]
    return min(found, key=lambda known: known.ignore_merges != ignore_merges, default=None)


def _canonical(entry: _Json | None) -> list[tuple[Any, ...]]:
    """The steps of an entry without what does not change the split: offsets, nesting, the spelling of line ends.

    "Removed" with ``invert`` keeps the matches only: the same as "Isolated" where the expression matches all text.
    """
    if entry is None:
        return []
    if entry.get("type") == "Sequence":
        return [step for part in entry["pretokenizers"] for step in _canonical(part)]
    pattern = {k: v.replace("\r", r"\r").replace("\n", r"\n") for k, v in entry.get("pattern", {}).items()}
    if entry.get("behavior") == "Removed" and entry.get("invert") and pattern.get("Regex", "").endswith(_MATCHES_ALL):
        entry = {**entry, "behavior": "Isolated", "invert": False}
    ignored = {"type", "pattern", "trim_offsets"}
    options = sorted((key, value) for key, value in entry.items() if key not in ignored)
    return [(entry.get("type"), tuple(pattern.items()), tuple(options))]
