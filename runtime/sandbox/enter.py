"""``enter_sandbox``: give up writing, the network and other processes, before an untrusted file is opened.

Call it before anything starts threads: NumPy does when it is imported, and a thread that runs keeps its rights.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sprat.runtime.sandbox.landlock import restrict_files
from sprat.runtime.sandbox.seccomp import filter_system_calls
from sprat.runtime.sandbox.system_call import checked, libc

__all__ = ["enter_sandbox", "limit_resources", "restrict_thread"]

_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS
_DESCRIPTORS = 256  # libraries, model files and memory; the parts of a split model come on top
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/proc", "/sys", "/dev/null", "/dev/urandom")


def enter_sandbox(files: Iterable[Path], memory_bytes: int | None = None) -> None:
    """Keep this process, until it ends, from writing files, from the network, and from starting or touching others.

    Args:
        files: the only files, besides those of Python and its libraries, that it can read (where the kernel has
            Landlock).
        memory_bytes: most memory that it can allocate, besides mapped files.

    Raises:
        BackendError: there is no libseccomp.
        OSError: the kernel refuses.
    """
    kept = list(files)
    limit_resources(memory_bytes, _DESCRIPTORS + len(kept))
    restrict_thread(kept)


def limit_resources(memory_bytes: int | None, n_descriptors: int) -> None:
    """No core file, no growing file, and limits on memory and descriptors; for the process."""
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: n_descriptors}
    if memory_bytes is not None:
        limits[resource.RLIMIT_DATA] = memory_bytes
    for kind, limit in limits.items():
        _, most = resource.getrlimit(kind)
        allowed = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(kind, (allowed, allowed))


def restrict_thread(files: Iterable[Path]) -> None:
    """The rest of :func:`enter_sandbox`, which holds for this thread and those that it starts.

    Raises:
        BackendError: there is no libseccomp.
        OSError: the kernel refuses.
    """
    checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    restrict_files([*_libraries(), *files])
    filter_system_calls()


def _libraries() -> Iterator[Path]:
    """The system's libraries, Python's, and sprat, whose rooms may be links out of its folder."""
    yield from map(Path, (*_SYSTEM, sys.prefix, sys.base_prefix, *filter(None, sys.path)))
    for package in map(Path, sys.modules["sprat"].__path__):
        yield package
        yield from (room.resolve() for room in package.iterdir() if room.is_symlink())
