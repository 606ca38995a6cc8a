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
    │   ├── DoesNotFitError              a model that needs more memory than the limit
    │   ├── TokenizerError               a tokenizer that cannot be read or rebuilt
    │   ├── TemplateError                a chat template that fails, exceeds its budget or leaves the sandbox
    │   └── PromptError                  a token id outside the vocabulary, a prompt longer than the context
    ├── BackendError (RuntimeError)      a backend that is not installed, or died
    ├── EmulationError (RuntimeError)    the limits of a device could not be set, or killed the process under them
    └── ExportError (RuntimeError)       the output could not be written: disk full, permissions, a changed source

A message names the thing, what was found, what was expected, and the remedy.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it as true; the imports would double the time of `import sprat`
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
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
    "ResultsError",
    "SpratError",
    "TemplateError",
    "TokenizerError",
    "unknown_name",
]


class SpratError(Exception):
    """Base class of all exceptions of sprat."""


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


class DoesNotFitError(InputError):
    """The model needs more memory than the limit."""


class TokenizerError(InputError):
    """A tokenizer cannot be read, or cannot be rebuilt from GGUF metadata."""


class TemplateError(InputError):
    """A chat template failed, exceeded its budget, or tried to leave the sandbox."""


class PromptError(InputError):
    """The model cannot process a prompt: token ids outside the vocabulary, or longer than the context."""


class BackendError(SpratError, RuntimeError):
    """A backend is not installed, or died while it was probed or used."""


class EmulationError(SpratError, RuntimeError):
    """A device's limits cannot be set on this machine, or they killed the process that ran under them."""


class ExportError(SpratError, RuntimeError):
    """The output could not be written completely."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a registry: the nearest name first, then all known names.

    Example:
        >>> unknown_name("device", "rpi5-8g", ["rpi4-4gb", "rpi5-8gb"])
        "unknown device 'rpi5-8g'; did you mean 'rpi5-8gb'? (known: rpi4-4gb, rpi5-8gb)"
    """
    import difflib  # here, because it would take a third of the time of `import sprat`

    names = sorted(known)
    folded = {known_name.casefold(): known_name for known_name in names}
    wanted = name.casefold()
    parts = [other for other in folded if len(wanted) > 2 and wanted in other]  # "pi5" of "rpi5-8gb"
    nearest = difflib.get_close_matches(wanted, folded, n=1) or parts
    hint = f"; did you mean {folded[nearest[0]]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})"
