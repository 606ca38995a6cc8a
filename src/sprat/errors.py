"""All exceptions that sprat raises on purpose.

::

    SpratError
    ├── InputError (ValueError)          an argument or a file is invalid; the command line exits with 2
    │   ├── ConfigError                  a config or its metadata: unsupported, missing or contradictory
    │   ├── CheckpointError              tensors of a source: missing, unexpected, size mismatch, damaged
    │   ├── ModelFileError               a model file: truncated, overlapping tensors, values out of range
    │   │   └── ModelFileChangedError    a model file that was rewritten or truncated, or fails, while it is in use
    │   ├── BundleError                  a bundle whose manifest and files disagree
    │   ├── FormatError                  an unknown block format, or a row length that it cannot divide
    │   ├── DeviceError                  an unknown device, or a profile with an invalid value
    │   ├── ResultsError                 a results file: another version, damaged, or of other tests
    │   ├── SavedStateError              a saved session or prefix: damaged, or of another model, backend or cache
    │   ├── DoesNotFitError              a model that needs more memory than the limit
    │   ├── TokenizerError               a tokenizer that cannot be read or rebuilt
    │   ├── TemplateError                a chat template that fails, exceeds its budget or leaves the sandbox
    │   └── PromptError                  a token id outside the vocabulary, a prompt longer than the context
    ├── BackendError (RuntimeError)      a backend that is not installed, died, or was closed
    │   └── BackendDiedError             the process of an isolated backend, or of a driver, ended; load it again
    ├── SessionBusyError (RuntimeError)  a session that is used by two threads at a time
    ├── QueueFullError (RuntimeError)    more requests wait for an engine than its queue holds
    ├── EmulationError (RuntimeError)    the limits of a device could not be set, or killed the process under them
    └── ExportError (RuntimeError)       the output could not be written: disk full, permissions, a changed source

A message names the thing, what was found, what was expected, and the remedy.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it as true; the imports would double the time of `import sprat`
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "BackendDiedError",
    "BackendError",
    "BundleError",
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "DoesNotFitError",
    "EmulationError",
    "ExportError",
    "FormatError",
    "InputError",
    "ModelFileChangedError",
    "ModelFileError",
    "PromptError",
    "QueueFullError",
    "ResultsError",
    "SavedStateError",
    "SessionBusyError",
    "SpratError",
    "TemplateError",
    "TokenizerError",
    "unknown_name",
]


_MAX_MESSAGE = 8000  # characters


class SpratError(Exception):
    """Base class of all exceptions of sprat.

    A message names what was found; of one that would have a million characters, both ends are kept.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE // 2]} […] {text[-_MAX_MESSAGE // 4 :]}"


class InputError(SpratError, ValueError):
    """An argument or a file that the user passed is invalid."""


class ConfigError(InputError):
    """A model configuration is unsupported, incomplete or contradicts itself."""


class CheckpointError(InputError):
    """Tensors of a source are missing, unexpected, of another shape, or damaged."""


class ModelFileError(InputError):
    """A model file is damaged or malicious: what it declares is inconsistent."""


class ModelFileChangedError(ModelFileError):
    """A model file was truncated or rewritten, or cannot be read any more, while it was in use; load it again."""


class BundleError(InputError):
    """A bundle's manifest and its files disagree."""


class FormatError(InputError):
    """A block format is unknown, or cannot store the tensor."""


class DeviceError(InputError):
    """A device is unknown, or its profile holds an invalid value."""


class ResultsError(InputError):
    """A results file has another version, is damaged, or holds other tests than the one it is compared with."""


class SavedStateError(InputError):
    """A saved session or prefix is damaged, or is of another model, backend or cache."""


class DoesNotFitError(InputError):
    """The model needs more memory than the limit."""


class TokenizerError(InputError):
    """A tokenizer cannot be read, or cannot be rebuilt from GGUF metadata."""


class TemplateError(InputError):
    """A chat template failed, exceeded its budget, or tried to leave the sandbox."""


class PromptError(InputError):
    """The model cannot process a prompt: token ids outside the vocabulary, or longer than the context."""


class BackendError(SpratError, RuntimeError):
    """A backend is not installed, died while it was probed or used, or was closed."""


class BackendDiedError(BackendError):
    """The process of an isolated backend, or of a driver, ended by a crash, a limit or a signal; load it again."""


class SessionBusyError(SpratError, RuntimeError):
    """A session or an answer is used by one thread while another is inside it."""


class QueueFullError(SpratError, RuntimeError):
    """More requests wait for an engine than its queue holds; try again later."""


class EmulationError(SpratError, RuntimeError):
    """A device's limits cannot be set on this machine, or they killed the process that ran under them."""


class ExportError(SpratError, RuntimeError):
    """The output could not be written completely."""


def unknown_name(kind: str, name: object, known: Iterable[str], other: Mapping[str, str] | None = None) -> str:
    """The message for a name that is not in a registry: the nearest names first, then all known names.

    Args:
        kind: what is named, ``"device"``.
        name: what was found; a value that is no string is shown as it is.
        known: all names.
        other: other texts that users write for a name (``"Raspberry Pi 5"``) -> what the message proposes.

    Example:
        >>> unknown_name("device", "rpi5-8g", ["rpi4-4gb", "rpi5-8gb"])
        "unknown device 'rpi5-8g'; did you mean 'rpi5-8gb'? (known: rpi4-4gb, rpi5-8gb)"
    """
    names = sorted(known)
    if not isinstance(name, str):
        return f"{kind} is {name!r}, expected a string (known: {', '.join(names)})"
    nearest = _nearest(name, {text: text for text in names} | dict(other or {}))
    hint = f"; did you mean {_alternatives(nearest)}?" if nearest else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})"


_MAX_NEAREST = 3
_SIMILAR = 0.65  # difflib's ratio of texts that resemble each other
_AS_SIMILAR = 0.02  # further texts are proposed whose ratio is this close to the best


def _nearest(name: str, proposals: Mapping[str, str]) -> list[str]:
    """The proposals whose text is ``name``, else has it as a part, else resembles it, else is a part of it."""
    import difflib  # here, because it would take a third of the time of `import sprat`

    shared = _shared_ending(list(proposals))
    folded = {text.removesuffix(shared).casefold(): proposal for text, proposal in proposals.items()}
    wanted = name.removesuffix(shared).casefold()
    plain = {text: _plain(text) for text in (wanted, *folded)}
    if not plain[wanted]:
        return []
    same = [text for text in folded if plain[text] == plain[wanted]]
    parts = [text for text in folded if len(plain[wanted]) > 2 and plain[wanted] in plain[text]]  # "pi5" of "rpi5-8gb"
    ratios = {text: difflib.SequenceMatcher(None, text, wanted).ratio() for text in folded}
    best = max(_SIMILAR, max(ratios.values(), default=0.0) - _AS_SIMILAR)
    similar = [text for text in folded if ratios[text] >= best]
    contained = [text for text in folded if len(plain[text]) > 3 and plain[text] in plain[wanted]]
    found = sorted(same or parts or similar or contained, key=lambda text: -ratios[text])
    return list(dict.fromkeys(folded[text] for text in found))[:_MAX_NEAREST]


def _alternatives(names: list[str]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}" if first else last


def _plain(text: str) -> str:
    """Letters and digits only, in one case."""
    return "".join(filter(str.isalnum, text.casefold()))


def _shared_ending(texts: list[str]) -> str:
    """The ending of all texts (``ForCausalLM``), which says nothing about which one was meant."""
    if len(texts) < 2:
        return ""
    first = texts[0]
    start = next(start for start in range(len(first) + 1) if all(text.endswith(first[start:]) for text in texts))
    return first[start:]
