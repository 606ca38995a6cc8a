"""Run a command that the system kills when it opens a socket that is not local: ``python no_network.py COMMAND …``.

With ``--may-listen`` before the command it may, and is killed when it connects one.
A seccomp filter (seccomp(2)), which children and threads inherit.
"""

import ctypes
import os
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: load a word, compare with a constant, return
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_AF_UNIX = 1
_NO_ARGUMENT = 0xFFFFFFFF  # no descriptor of a socket: every connect is forbidden
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
# AUDIT_ARCH, socket(2), connect(2)
_MACHINES = {"x86_64": (0xC000003E, 41, 42), "aarch64": (0xC00000B7, 198, 203)}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forbid(*, may_listen=False):
    """Install the filter in this process."""
    architecture, socket_number, connect_number = _MACHINES[platform.machine()]
    number, local = (connect_number, _NO_ARGUMENT) if may_listen else (socket_number, _AF_UNIX)
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 4, architecture),  # another one: system calls of 32-bit programs, killed too
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 1, 0, local),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(steps), ctypes.cast(held, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    may_listen = sys.argv[1] == "--may-listen"
    forbid(may_listen=may_listen)
    command = sys.argv[1 + may_listen :]
    os.execvp(command[0], command)
