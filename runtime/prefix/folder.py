"""``PrefixFolder``: prefixes on disk, which a restart need not compute again.

A file holds a whole prefix, from its first token on. What is written is bounded, because flash wears out: a prefix of
which most is in another file is left out, and the files that were used longest ago go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from sprat.arrays import I32Array
from sprat.errors import InputError, SavedStateError
from sprat.runtime.cache import Cache
from sprat.runtime.prefix.entries import Entries
from sprat.runtime.prefix.saved_state import StateIdentity, read_state, read_tokens, write_state
from sprat.runtime.prefix.tree import n_common

__all__ = ["PrefixFolder"]

_SUFFIX = ".sprat-prefix"
_MIN_TOKENS = 64  # a shorter prefix is computed as fast as it is read
_ABANDONED_S = 3600
_WRITE_AGAIN_S = 600  # after a failure: on full storage each attempt writes all that fits
_MIN_NEW = 0.25  # share of a prefix that no file has yet


class PrefixFolder:
    """The files of one model in a folder, which may hold those of others.

    For one thread at a time, except :meth:`read` and :meth:`write`.

    Args:
        path: the folder, made if it does not exist.
        identity: of the model.
        limit_bytes: of all files of the model.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, path: Path, identity: StateIdentity, limit_bytes: int) -> None:
        self._path, self._identity, self._limit_bytes = path, identity, limit_bytes
        self._prefix = hashlib.sha256("\n".join(_fields(identity)).encode()).hexdigest()[:16]
        self._tokens: dict[Path, I32Array] = {}
        self._write_again = 0.0  # on the clock of time.monotonic
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"prefix_cache: {path} is no folder, and cannot be one ({error.strerror})") from error
        self._delete_abandoned()
        for file in sorted(path.glob(f"{self._prefix}-*{_SUFFIX}")):
            try:
                if file.stat().st_size <= limit_bytes:  # a larger one is of a longer context, or there to fill memory
                    self._tokens[file] = read_tokens(file, identity)
            except (SavedStateError, OSError) as error:
                self.drop(file, error)

    def __contains__(self, file: Path) -> bool:
        """Whether ``file`` is one of them."""
        return file in self._tokens

    def find(self, tokens: I32Array, beyond: int) -> tuple[Path, I32Array] | None:
        """The file that shares most with ``tokens``, more than ``beyond`` of them, and its whole prefix."""
        shared = {file: n_common(known, tokens) for file, known in self._tokens.items()}
        file = max(shared, key=shared.__getitem__, default=None)
        return (file, self._tokens[file]) if file is not None and shared[file] > beyond else None

    def read(self, file: Path, cache: Cache) -> Entries:
        """The entries of a file that was found, mapped.

        Raises:
            SavedStateError: it is damaged.
            OSError: it cannot be read.
        """
        _count_as_used(file)
        return read_state(file, self._identity, cache)[1]

    def drop(self, file: Path, error: Exception) -> None:
        """Forget a file that cannot be used, with a warning: its prompt is computed again."""
        warnings.warn(f"{error}; the prompt is processed again", RuntimeWarning, stacklevel=3)
        self._delete(file)

    def wants(self, tokens: I32Array) -> bool:
        """Whether a file for this prefix is worth writing."""
        if time.monotonic() < self._write_again:
            return False
        held = max((n_common(known, tokens) for known in self._tokens.values()), default=0)
        return len(tokens) - held >= max(_MIN_TOKENS, _MIN_NEW * len(tokens))

    def write(self, tokens: I32Array, pieces: Sequence[Entries]) -> Path | None:
        """Write a prefix; ``None`` if that failed, which is a warning."""
        name = hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()[:32]
        file = self._path / f"{self._prefix}-{name}{_SUFFIX}"
        try:
            write_state(file, self._identity, tokens.tolist(), pieces)
        except (OSError, SavedStateError) as error:
            why = getattr(error, "strerror", None) or error
            warnings.warn(f"{file}: the prefix was not saved ({why})", RuntimeWarning, stacklevel=2)
            self._write_again = time.monotonic() + _WRITE_AGAIN_S
            return None
        return file

    def add(self, file: Path, tokens: I32Array) -> None:
        """Count a file that was written, and delete what is too much."""
        self._tokens[file] = tokens.copy()
        self._shrink()

    def _shrink(self) -> None:
        """Delete the files that were used longest ago until the rest is within the limit."""
        found = {}
        for file in self._tokens:
            with contextlib.suppress(OSError):  # another process deleted it
                found[file] = file.stat()
        total = sum(status.st_size for status in found.values())
        for file in sorted(found, key=lambda file: found[file].st_ctime_ns):
            if total <= self._limit_bytes:
                return
            total -= found[file].st_size
            self._delete(file)

    def _delete_abandoned(self) -> None:
        """Delete what was half written when a device was unplugged; another process may be writing a newer one."""
        for partial in self._path.glob(f".{self._prefix}-*.partial"):
            with contextlib.suppress(OSError):  # read-only, or gone
                if time.time() - partial.lstat().st_mtime > _ABANDONED_S:
                    partial.unlink()

    def _delete(self, file: Path) -> None:
        self._tokens.pop(file, None)
        with contextlib.suppress(OSError):  # read-only, or gone
            file.unlink()


def _count_as_used(file: Path) -> None:
    """Set the change time, which orders files by use; the other times stay, or processes that map it see a change."""
    with contextlib.suppress(OSError):  # read-only
        status = file.stat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _fields(identity: StateIdentity) -> list[str]:
    return [identity.model, identity.producer, identity.geometry]
