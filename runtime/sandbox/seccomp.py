"""A seccomp filter (seccomp(2)): system calls that a thread never makes again.

By libseccomp, which knows their numbers on every processor and is on every system with systemd or apt.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from sprat.errors import BackendError

__all__ = ["filter_system_calls"]

_ALLOW, _FAIL = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW; SCMP_ACT_ERRNO, with the error in its lower half
_NOT_EQUAL, _MASKED_EQUAL = 1, 7  # enum scmp_compare
_CLONE_THREAD = 0x00010000

_NETWORK = "socket socketpair connect bind listen accept accept4"
_PROCESSES = (
    "execve execveat fork vfork ptrace process_vm_readv process_vm_writev pidfd_getfd pidfd_send_signal tkill "
    "rt_sigqueueinfo rt_tgsigqueueinfo setrlimit"
)
_FILES = (
    "creat mkdir mkdirat mknod mknodat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat "
    "truncate chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes utimensat futimesat "
    "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr open_by_handle_at"
)
_SYSTEM = (
    "mount umount2 move_mount open_tree fsopen fsmount pivot_root chroot unshare setns bpf perf_event_open userfaultfd "
    "keyctl add_key request_key init_module finit_module delete_module kexec_load kexec_file_load reboot swapon "
    "swapoff settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname quotactl acct "
    "io_uring_setup io_uring_enter io_uring_register"
)
# Their arguments are in memory, which a filter cannot read. Without them the C library takes openat and clone.
_OLDER_INSTEAD = "openat2 clone3"


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Rule(NamedTuple):
    """A system call that fails, always or where an argument compares as given."""

    call: str
    comparison: tuple[int, int, int, int] | None = None
    error: int = errno.EPERM


def filter_system_calls() -> None:
    """Let system calls fail with EPERM in this thread, and in those that it starts, for ever.

    Those that reach a network, start or touch another process, open a file for writing or change a folder, and those
    that a model never needs and attackers do.

    Raises:
        BackendError: there is no libseccomp.
        OSError: the kernel refuses the filter.
    """
    lib = _library()
    context = lib.seccomp_init(_ALLOW)
    if not context:
        raise MemoryError("seccomp_init")
    try:
        for rule in _rules():
            _add(lib, context, rule)
        _check(lib.seccomp_load(context), "seccomp_load")
    finally:
        lib.seccomp_release(context)


def _rules() -> Iterator[_Rule]:
    for call in " ".join((_NETWORK, _PROCESSES, _FILES, _SYSTEM)).split():
        yield _Rule(call)
    for call in _OLDER_INSTEAD.split():
        yield _Rule(call, error=errno.ENOSYS)
    for call, argument in (("open", 1), ("openat", 2)):
        for mask, flags in (
            (os.O_ACCMODE, os.O_WRONLY),
            (os.O_ACCMODE, os.O_RDWR),
            (os.O_ACCMODE, os.O_ACCMODE),
            (os.O_CREAT, os.O_CREAT),
            (os.O_TRUNC, os.O_TRUNC),
        ):
            yield _Rule(call, (argument, _MASKED_EQUAL, mask, flags))
    yield _Rule("clone", (0, _MASKED_EQUAL, _CLONE_THREAD, 0))  # a process, not a thread
    for call in ("kill", "tgkill"):
        yield _Rule(call, (0, _NOT_EQUAL, os.getpid(), 0))
    yield _Rule("prlimit64", (2, _NOT_EQUAL, 0, 0))  # new limits


def _add(lib: Any, context: int, rule: _Rule) -> None:
    number = lib.seccomp_syscall_resolve_name(rule.call.encode())
    if number < 0:
        return  # this processor, or this version of the library, has no such call
    action = _FAIL | rule.error
    if rule.comparison is None:
        result = lib.seccomp_rule_add_array(context, action, number, 0, None)
    else:
        result = lib.seccomp_rule_add_array(context, action, number, 1, ctypes.byref(_Comparison(*rule.comparison)))
    _check(result, rule.call)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")


def _library() -> Any:
    try:
        lib = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise BackendError(
            f"isolation needs libseccomp, which cannot be loaded ({error}); install it (Debian: apt install "
            "libseccomp2), or load the model without isolation"
        ) from error
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_release.argtypes = lib.seccomp_load.argtypes = [ctypes.c_void_p]
    lib.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    return lib
