"""Give a finished folder its final name, so that one complete folder has it at every moment."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from sprat.files import sync_folder

__all__ = ["replace_folder"]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


def replace_folder(new: Path, out: Path, replaced: Path) -> None:
    """Rename ``new`` to ``out``, and what ``out`` was to ``replaced``, which does not exist.

    Where the system can, the two names are exchanged in one step. Elsewhere ``out`` is missing for a moment; if the
    second rename fails, ``out`` is put back.

    Raises:
        OSError: a rename failed; ``out`` is as it was.
    """
    if _exchange(new, out):
        new.replace(replaced)
    else:
        out.replace(replaced)
        try:
            new.replace(out)
        except OSError:
            replaced.replace(out)
            raise
    sync_folder(out.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names; false if the C library, the kernel or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = (os.fsencode(first), os.fsencode(second))
    if rename(_AT_FDCWD, ctypes.c_char_p(names[0]), _AT_FDCWD, ctypes.c_char_p(names[1]), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(second))
