"""Chat templates as stored: in the files of a checkpoint, and in the keys of a GGUF.

A GGUF has ``tokenizer.chat_template`` and, as gguf-py writes them, ``tokenizer.chat_template.NAME`` for further ones.
``tokenizer.special_tokens_map`` is sprat's: the special tokens as tokenizer_config.json has them, as JSON. The ids of a
GGUF do not say which of them a template may write: Qwen's tokenizers have a BOS id and no ``bos_token``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sprat.files import read_text
from sprat.runtime.chat.template import DEFAULT_NAME, ChatTemplate
from sprat.runtime.tokenizer.hf_files import TokenizerFiles

__all__ = ["StoredTemplates", "is_template_key", "template_file", "template_from_files", "template_from_metadata"]

_EXTRA_FOLDER = "additional_chat_templates"

_FILE = "chat_template.jinja"
_KEY = "tokenizer.chat_template"
_NAMES_KEY = "tokenizer.chat_templates"
_SPECIAL_TOKENS_KEY = "tokenizer.special_tokens_map"
_ID_KEYS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_SENTENCEPIECE_IDS = {"bos": 1, "eos": 2, "unk": 0}  # llama.cpp's defaults


class StoredTemplates(msgspec.Struct, frozen=True):
    """Chat templates and the special tokens that they may write.

    Attributes:
        sources: name -> template.
        special_tokens: ``bos_token`` and so on.
        problems: what could not be read.
    """

    sources: Mapping[str, str]
    special_tokens: Mapping[str, str]
    problems: tuple[str, ...] = ()

    def template(self) -> ChatTemplate | None:
        """The template; ``None`` if there is none."""
        return ChatTemplate(self.sources, self.special_tokens) if self.sources else None

    def metadata(self) -> dict[str, Any]:
        """The keys of a GGUF."""
        import msgspec

        keys: dict[str, Any] = {
            _KEY if name == DEFAULT_NAME else f"{_KEY}.{name}": source for name, source in self.sources.items()
        }
        if others := sorted(self.sources.keys() - {DEFAULT_NAME}):
            keys[_NAMES_KEY] = others
        if self.sources:
            keys[_SPECIAL_TOKENS_KEY] = msgspec.json.encode(self.special_tokens, order="sorted").decode()
        return keys

    @classmethod
    def from_files(cls, files: TokenizerFiles) -> StoredTemplates:
        """chat_template.jinja and additional_chat_templates/, or else the templates in tokenizer_config.json."""
        folder = files.path.parent
        paths = {path.stem: path for path in sorted((folder / _EXTRA_FOLDER).glob("*.jinja")) if path.is_file()}
        if (folder / _FILE).is_file():
            paths[DEFAULT_NAME] = folder / _FILE
        sources, problems = _read_all(paths)
        if not paths:
            sources, problems = _from_config(files.config.get("chat_template"))
        names = {_key_name(name): source for name, source in sources.items()}
        return cls(names, files.special_names(), tuple(problems))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> StoredTemplates:
        """The templates in a GGUF's metadata."""
        named = {key.removeprefix(f"{_KEY}."): value for key, value in metadata.items() if key.startswith(f"{_KEY}.")}
        found = {DEFAULT_NAME: metadata.get(_KEY), **named}
        sources = {name: source for name, source in found.items() if isinstance(source, str) and source}
        wrong = [name for name, source in found.items() if source is not None and not isinstance(source, str)]
        problems = tuple(f"chat template {name!r}: the GGUF stores it as something other than text" for name in wrong)
        special_tokens = _stored_special_tokens(metadata.get(_SPECIAL_TOKENS_KEY))
        return cls(sources, _by_id(metadata) if special_tokens is None else special_tokens, problems)


def template_from_files(files: TokenizerFiles) -> ChatTemplate | None:
    """The chat template beside a tokenizer, if there is one."""
    return StoredTemplates.from_files(files).template()


def template_from_metadata(metadata: Mapping[str, Any]) -> ChatTemplate | None:
    """The chat template in a GGUF's metadata, if it has one."""
    return StoredTemplates.from_metadata(metadata).template()


def is_template_key(key: str) -> bool:
    """Whether a key of a GGUF holds a chat template, or something about it."""
    return key in {_NAMES_KEY, _SPECIAL_TOKENS_KEY} or template_file(key) is not None


def template_file(key: str) -> str | None:
    """The file in which transformers looks for the template of a GGUF's key; ``None`` if the key is another's."""
    if key == _KEY:
        return _FILE
    return f"{_EXTRA_FOLDER}/{key.removeprefix(f'{_KEY}.')}.jinja" if key.startswith(f"{_KEY}.") else None


def _read_all(paths: Mapping[str, Path]) -> tuple[dict[str, str], list[str]]:
    sources, problems = {}, []
    for name, path in paths.items():
        try:
            sources[name] = read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"chat template: {path.name} cannot be read ({error}); save it as UTF-8")
    return sources, problems


def _from_config(entry: Any) -> tuple[dict[str, str], list[str]]:
    """The entry in tokenizer_config.json: a template, or a list of ``{"name": …, "template": …}``."""
    if entry is None:
        return {}, []
    if isinstance(entry, dict):
        pairs = list(entry.items())
    elif isinstance(entry, list):
        pairs = [(one.get("name"), one.get("template")) if isinstance(one, dict) else (None, None) for one in entry]
    else:
        pairs = [(DEFAULT_NAME, entry)]
    sources = {name: source for name, source in pairs if isinstance(name, str) and isinstance(source, str)}
    wrong = len(pairs) - len(sources)
    problem = f"chat template: {wrong} of {len(pairs)} in tokenizer_config.json are not text with a name; left out"
    return sources, [problem] if wrong else []


def _key_name(name: str) -> str:
    """``name`` as part of a key and of a file name, by gguf-py's rule."""
    return re.sub(r"[^0-9A-Za-z]", "_", name)


def _stored_special_tokens(text: Any) -> dict[str, str] | None:
    import msgspec

    try:
        return msgspec.json.decode(text, type=dict[str, str]) if isinstance(text, str) else None
    except (msgspec.DecodeError, RecursionError):
        return None  # written by another program; the ids tell most of it


def _by_id(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that the ids of a GGUF name."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    defaults = _SENTENCEPIECE_IDS if metadata.get("tokenizer.ggml.model") == "llama" else {}
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id", defaults.get(name)) for name, key in _ID_KEYS.items()}
    size = len(tokens) if isinstance(tokens, list) else 0
    return {
        f"{name}_token": str(tokens[index])
        for name, index in ids.items()
        if tokens and isinstance(index, int) and 0 <= index < size
    }
