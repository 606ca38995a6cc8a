"""All errors that sprat raises.

::

    SpratError
    ├── InputError (ValueError)          an argument cannot be used; the command line exits with 2
    │   ├── ConfigError                  a model's config: unsupported, incomplete or contradictory
    │   ├── CheckpointError              tensors of a checkpoint: missing, unexpected, size mismatch, damaged
    │   ├── ModelFileError               a model file that is invalid: truncated, overlapping, out of range
    │   ├── BundleError                  a bundle whose manifest and files disagree
    │   ├── FormatError                  an unknown block format, or rows that do not divide into its blocks
    │   ├── DeviceError                  an unknown device, or a profile with a wrong value
    │   ├── ResultsError                 a results file that is damaged, of another version or of other tests
    │   ├── DoesNotFitError              a model that needs more memory than its budget
    │   ├── TokenizerError               a vocabulary that cannot be read or rebuilt
    │   ├── TemplateError                a chat template that fails, runs too long or uses a forbidden name
    │   └── PromptError                  an unknown token id, or a prompt longer than the context
    ├── BackendError (RuntimeError)      a backend that is not installed, or that crashed
    ├── EmulationError (RuntimeError)    a device's limits cannot be set, or killed the process
    └── ExportError (RuntimeError)       the output cannot be written: disk, permissions, a source that changed

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
    "ModelFileError",
    "PromptError",
    "ResultsError",
    "SpratError",
    "TemplateError",
    "TokenizerError",
    "unknown_name",
]


class SpratError(Exception):
    """The base class of all errors that sprat raises."""


class InputError(SpratError, ValueError):
    """An argument, a file or an option cannot be used; the message says why and what to do."""


class ConfigError(InputError):
    """The config of a model is unsupported, incomplete or contradictory."""


class CheckpointError(InputError):
    """Tensors of a checkpoint are missing, unexpected, of the wrong size or damaged."""


class ModelFileError(InputError):
    """A model file is invalid: truncated, or its header contradicts its contents."""


class BundleError(InputError):
    """The manifest and the files of a bundle do not match."""


class FormatError(InputError):
    """A block format is unknown, or the rows of a tensor do not divide into its blocks."""


class DeviceError(InputError):
    """A device profile is unknown, or its values are invalid."""


class ResultsError(InputError):
    """A results file is damaged, of another version, or of other tests than those to compare with."""


class DoesNotFitError(InputError):
    """The model needs more memory than its budget."""


class TokenizerError(InputError):
    """A tokenizer cannot be read, or cannot be rebuilt from the metadata of a file."""


class TemplateError(InputError):
    """A chat template failed, ran too long, or used a name that the sandbox forbids."""


class PromptError(InputError):
    """A prompt has token ids outside the vocabulary, or is longer than the context."""


class BackendError(SpratError, RuntimeError):
    """A backend is not installed, or crashed."""


class EmulationError(SpratError, RuntimeError):
    """The limits of an emulated device cannot be set on this machine, or killed the process that ran under them."""


class ExportError(SpratError, RuntimeError):
    """The output cannot be written, or the source changed during the export."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a registry: the nearest name, then all known ones.

    Example:
        >>> unknown_name("device", "rpi5-8g", ["rpi4-4gb", "rpi5-8gb"])
        "unknown device 'rpi5-8g'; did you mean 'rpi5-8gb'? Known: rpi4-4gb, rpi5-8gb."
    """
    import difflib  # here, because it is slow to import and only errors need it

    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}."
