"""Landlock (landlock(7)): of all files, a thread can only read some. Linux 5.13 and later, if it is switched on."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from sprat.runtime.sandbox.system_call import checked, libc

__all__ = ["landlock_version", "restrict_files"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # numbers of system calls, on every processor
_VERSION = 1  # flag of _CREATE_RULESET
_BENEATH = 1  # type of a rule
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # version -> number of rights to files; later ones have 16


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 without it."""
    return max(0, int(libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def restrict_files(readable: Iterable[Path]) -> bool:
    """Leave this thread, and those that it starts, the right to read ``readable`` and nothing else; for ever.

    Files that are open stay open. The thread must have given up new privileges (``PR_SET_NO_NEW_PRIVS``).

    Args:
        readable: files and folders, these with all that is in them; what does not exist is left out.

    Returns:
        Whether the kernel has Landlock; without it nothing is done.

    Raises:
        OSError: the kernel refuses.
    """
    version = landlock_version()
    if not version:
        return False
    rights = struct.pack("Q", (1 << _RIGHTS.get(version, 16)) - 1)
    ruleset = checked(libc.syscall(_CREATE_RULESET, rights, len(rights), 0), "landlock_create_ruleset")
    try:
        for path in readable:
            _allow(ruleset, path)
        checked(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = _READ_FILE | _READ_FOLDER if path.is_dir() else _READ_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor))
        checked(libc.syscall(_ADD_RULE, ruleset, _BENEATH, rule, 0), f"landlock_add_rule for {path}")
    finally:
        os.close(descriptor)
