"""The boundary of public calls: errors of the system and of the interpreter become SpratError.

The readers name what is wrong with a file. This is for what they cannot expect: a name of over 255 bytes, a loop of
links, a storage device that fails, a document nested so deeply that walking it overflows the stack. Arguments of
another type than a function declares are named before anything runs.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from sprat.errors import DoesNotFitError, InputError, SpratError
from sprat.keywords import checks_keywords

__all__ = ["plain_errors", "public_call"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# About the path that the caller passed, or a name in a file; all others are about the machine.
_ABOUT_THE_NAME = {
    errno.EACCES,
    errno.EFBIG,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
}


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what a caller need not know of as a SpratError.

    Raises:
        InputError: a path or a name in a file cannot be used, text is not valid Unicode, or a document is nested too
            deeply.
        DoesNotFitError: memory is exhausted.
        SpratError: the operating system failed to read or write.
    """
    try:
        yield
    except OSError as error:
        kind = InputError if error.errno in _ABOUT_THE_NAME else SpratError
        subject = error.filename or "the file system"
        raise kind(f"{subject}: {error.strerror or error}; check the path, its permissions and the disk") from error
    except UnicodeError as error:
        raise InputError(f"text that is not valid Unicode ({error}); expected UTF-8") from error
    except RecursionError as error:
        raise InputError("a document is nested too deeply; expected at most some hundred levels") from error
    except MemoryError as error:
        raise DoesNotFitError(
            f"memory is exhausted ({str(error) or 'an allocation failed'}); close other programs, raise the limit of "
            "this process (ulimit -v), or take a smaller model or context"
        ) from error


def public_call(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function of the public API: its keywords, the types of its arguments, and :func:`plain_errors`.

    Raises:
        TypeError: in the decorated function, for an unknown keyword.
        InputError: for an argument of another type than declared, and as :func:`plain_errors`.
    """
    checked = checks_keywords(function)

    @functools.wraps(function)
    def called(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        from sprat.argument_types import check_arguments  # imports what `import sprat` need not

        check_arguments(function, args, kwargs)
        with plain_errors():
            return checked(*args, **kwargs)

    return called
