"""``ForkSafeLock``: a lock that is free in a forked child, whichever thread of the parent held it."""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["ForkSafeLock"]

_all: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


class ForkSafeLock:
    """A reentrant lock, for ``with`` statements.

    A thread that holds a lock when another thread forks does not exist in the child, and never releases it there. So
    the child gets a new one. What the lock guards may be half changed then: use it for what this does not harm, and do
    not fork inside of it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _all.add(self)

    def renew(self) -> None:
        """Forget the holder; for a child."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _renew_all() -> None:
    for lock in list(_all):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
