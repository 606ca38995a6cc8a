"""Every error that sprat raises on purpose.

::

    SpratError
    ├── InputError (ValueError)          what a user passed cannot be used; the command line exits with 2
    │   ├── ConfigError                  a config or its metadata: unsupported, missing or contradictory
    │   ├── CheckpointError              the tensors of a source: missing, surplus, misshapen, damaged
    │   ├── ModelFileError               a GGUF that cannot be trusted: truncated, overlapping, out of range
    │   ├── BundleError                  a bundle whose manifest and files disagree
    │   ├── FormatError                  an unknown block format, or a row that it cannot divide
    │   ├── DeviceError                  an unknown device, or a profile with a wrong figure
    │   ├── ResultsError                 a results file of another version, damaged, or of other work
    │   ├── DoesNotFitError              a model larger than the memory that it may use
    │   ├── TokenizerError               a vocabulary that cannot be read or rebuilt
    │   ├── TemplateError                a chat template that fails, loops or reaches for what it must not
    │   └── PromptError                  a token beyond the vocabulary, a prompt longer than the context
    ├── BackendError (RuntimeError)      a backend that is not installed or died
    ├── EmulationError (RuntimeError)    the limits of a device could not be set, or killed what ran under them
    └── ExportError (RuntimeError)       the output could not be written: disk, rights, a source that changed

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
    """Root of the tree: catch this to catch all of them."""


class InputError(SpratError, ValueError):
    """Something that the user passed cannot be used as it is."""


class ConfigError(InputError):
    """A model configuration is unsupported, incomplete or contradicts itself."""


class CheckpointError(InputError):
    """The tensors of a source are missing, surplus, misshapen or damaged."""


class ModelFileError(InputError):
    """A model file cannot be trusted: what it declares does not hold."""


class BundleError(InputError):
    """A bundle's manifest and its files disagree."""


class FormatError(InputError):
    """A block format is unknown or cannot hold the tensor."""


class DeviceError(InputError):
    """A device profile is unknown or impossible."""


class ResultsError(InputError):
    """A results file is of another version, damaged, or holds other work than it is compared with."""


class DoesNotFitError(InputError):
    """The model needs more memory than it may use."""


class TokenizerError(InputError):
    """A tokenizer cannot be read, or cannot be rebuilt from a file's metadata."""


class TemplateError(InputError):
    """A chat template failed, ran too long, or reached for what it must not."""


class PromptError(InputError):
    """A prompt that the model cannot take: unknown token ids, or longer than the context."""


class BackendError(SpratError, RuntimeError):
    """A backend is not installed, or died while it was probed or used."""


class EmulationError(SpratError, RuntimeError):
    """A device's limits cannot be set on this machine, or what ran under them was killed by them."""


class ExportError(SpratError, RuntimeError):
    """The output could not be written whole."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a registry: nearest name first, then all known ones.

    Example:
        >>> unknown_name("device", "rpi5-8g", ["rpi4-4gb", "rpi5-8gb"])
        "unknown device 'rpi5-8g'; did you mean 'rpi5-8gb'? Known: rpi4-4gb, rpi5-8gb."
    """
    import difflib  # only on the way to an error: it costs a third of `import sprat`

    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}."
