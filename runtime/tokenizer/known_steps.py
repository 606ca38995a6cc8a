"""The steps of a tokenizer.json that sprat runs: those of published models, whose work is linear in the text.

A tokenizer.json is a program. Forty replacements of ``a`` by ``aa`` make a terabyte of one letter, and some steps end
the process where their settings are wrong. So every step is compared with the list below before the library sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.pretokenizers import recognize

__all__ = ["check_steps"]

_Json = Mapping[str, Any]
_SPACE = "\u2581"  # SentencePiece's visible space
_MAX_NESTING = 4  # of Sequence; published files have one or two
_NORMALIZERS: tuple[_Json, ...] = (
    {"type": "NFC"},
    {"type": "Prepend", "prepend": _SPACE},
    {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
)
_SENTENCEPIECE_SPLIT: _Json = {  # Gemma
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
_METASPACE: dict[str, list[Any]] = {
    "type": ["Metaspace"],
    "replacement": [_SPACE],
    "prepend_scheme": ["always", "first", "never"],
    "add_prefix_space": [True, False],
    "split": [True, False],
    "str_rep": [_SPACE],
}
_DECODERS: tuple[_Json, ...] = (
    {"type": "ByteFallback"},
    {"type": "Fuse"},
    {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
)
_MAX_QUOTED = 120  # characters of a step in a message


def check_steps(document: _Json, source: object) -> None:
    """Check that a tokenizer.json has known steps only.

    Args:
        document: the tokenizer.json.
        source: where it comes from, for messages.

    Raises:
        TokenizerError: a normalizer, pre-tokenizer, post-processor, decoder or setting of the model is not that of a
            known tokenizer; the message has the first one.
    """
    model = document["model"]
    spm = bool(model.get("byte_fallback"))
    if not spm and recognize(document.get("pre_tokenizer")) is None:
        raise TokenizerError(
            f"{source}: the pre-tokenizer has no name in llama.cpp that sprat knows; use a model of a supported "
            "family, or add the pre-tokenizer to sprat/runtime/tokenizer/pretokenizers.py"
        )
    sections: dict[str, Callable[[_Json], bool]] = {
        "normalizer": lambda step: step in _NORMALIZERS,
        "pre_tokenizer": _is_sentencepiece_split if spm else lambda _step: True,
        "post_processor": _is_processor,
        "decoder": _is_decoder,
    }
    for section, is_known in sections.items():
        steps = list(_steps(document.get(section), source))
        unknown = [step for step in steps if not is_known(step)]
        repeated = [step for index, step in enumerate(steps) if section == "normalizer" and step in steps[:index]]
        for step in (*unknown, *repeated):
            raise TokenizerError(
                f"{source}: the {section} has the step {str(step)[:_MAX_QUOTED]}, expected those of a published "
                "DeepSeek, Llama, Qwen or SentencePiece tokenizer, each once; use a model of a supported family"
            )
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise TokenizerError(
                f"{source}: {name} is {model[name]!r}, expected none; use a byte-level or SentencePiece BPE tokenizer"
            )


def _steps(entry: Any, source: object, depth: int = 0) -> Iterator[_Json]:
    """The steps of an entry, those of a ``Sequence`` one by one."""
    if entry is None:
        return
    if not isinstance(entry, Mapping) or depth > _MAX_NESTING:
        raise TokenizerError(f"{source}: not a tokenizer: found {str(entry)[:_MAX_QUOTED]}, expected a step")
    if entry.get("type") != "Sequence":
        yield entry
        return
    names = ("normalizers", "pretokenizers", "processors", "decoders")
    for part in next((entry[name] for name in names if name in entry), []):
        yield from _steps(part, source, depth + 1)


def _is_sentencepiece_split(step: _Json) -> bool:
    return step == _SENTENCEPIECE_SPLIT or _has_settings(step, _METASPACE)


def _is_processor(step: _Json) -> bool:
    """Whether a post-processor only trims offsets (ByteLevel), or adds special tokens around the text."""
    if step.get("type") == "ByteLevel":
        return True
    parts = step.get("single")
    return (
        step.get("type") == "TemplateProcessing"
        and isinstance(parts, list)
        and all(isinstance(part, Mapping) and len({"SpecialToken", "Sequence"} & part.keys()) == 1 for part in parts)
    )


def _is_decoder(step: _Json) -> bool:
    return step.get("type") == "ByteLevel" or step in _DECODERS or _has_settings(step, _METASPACE)


def _has_settings(step: _Json, allowed: Mapping[str, list[Any]]) -> bool:
    """Whether ``step`` has only allowed settings, each with an allowed value."""
    return "type" in step and all(value in allowed.get(name, ()) for name, value in step.items())
