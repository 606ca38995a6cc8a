"""``MaskAhead``: the mask of the next token, computed by another thread while the model computes its logits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from sprat.runtime.generate.guide import Guide, TokenMask

__all__ = ["MaskAhead"]

_LONG = 1e-4  # seconds of a mask from which handing it to a thread, some 30 us, saves time


class MaskAhead:
    """A guide whose masks do not delay the answer. Masks that take next to no time stay in the caller's thread.

    Args:
        guide: what restricts the answer. It is used by one thread at a time.
    """

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        self._seconds = 0.0  # of the last mask
        self._computed: Future[TokenMask | None] | None = None
        self._forced: list[int] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the answer is complete, so that no token may follow."""
        return self._guide.is_complete

    def allowed(self) -> TokenMask | None:
        """The tokens that may come next; ``None`` for all.

        Raises:
            InputError: the grammar takes too long, or has no continuation.
        """
        if self._computed is None:
            return self._mask()
        computed, self._computed = self._computed, None
        return computed.result()

    def accept(self, token_id: int) -> int:
        """Take the token that was sampled, or replace it; return the one that was taken."""
        self._computed = self._forced = None
        return self._guide.accept(token_id)

    def forced(self) -> list[int]:
        """Tokens that probably come next."""
        if self._forced is None:
            self._forced = self._guide.forced()
        return self._forced

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Inside the block, which is a forward pass, the next mask is computed if it is likely to take long."""
        if self._seconds < _LONG:
            yield
            return
        self.forced()  # what drafts are made of; meanwhile the guide is the other thread's
        computed = self._computed = _Threads.submit(self)
        try:
            yield
        finally:
            computed.exception()  # waits; allowed() raises it

    def _mask(self) -> TokenMask | None:
        started = time.perf_counter()
        try:
            return self._guide.allowed()
        finally:
            self._seconds = time.perf_counter() - started


class _Threads:
    """Threads of this process. A forked child starts its own; no mask is computed while the caller could fork."""

    _pool: ThreadPoolExecutor | None = None

    @classmethod
    def submit(cls, guide: MaskAhead) -> Future[TokenMask | None]:
        if cls._pool is None:
            cls._pool = ThreadPoolExecutor(thread_name_prefix="sprat-mask")
        return cls._pool.submit(guide._mask)  # noqa: SLF001  # of this file

    @classmethod
    def forget(cls) -> None:
        cls._pool = None


os.register_at_fork(after_in_child=_Threads.forget)
