"""``PrefixCache``: the KV entries of prompts that an engine has processed, for all of its streams.

It is bounded by its own limit and by the engine's budget, from which streams come first: entries are dropped, those
used longest ago first, when a new stream lacks memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.arrays import I32Array
from sprat.runtime.cache import Cache, Rows
from sprat.runtime.memory.cache_budget import CacheBudget
from sprat.runtime.prefix.folder import PrefixFolder
from sprat.runtime.prefix.tree import PrefixTree, Run, cut

__all__ = ["PrefixCache"]


class PrefixCache:
    """Prefixes in memory, and in a folder if there is one; may be used from several threads.

    Args:
        budget: of the engine; its lock guards the entries, too.
        limit_bytes: of the entries in memory.
        grain: prefixes are multiples of this many tokens. That of the prompt's chunks gives the bits of a prompt that
            is processed as a whole.
        folder: the prefixes on disk.
    """

    def __init__(
        self, budget: CacheBudget, limit_bytes: int, *, grain: int = 1, folder: PrefixFolder | None = None
    ) -> None:
        self.grain = grain
        self._budget, self._limit_bytes, self._folder = budget, limit_bytes, folder
        self._lock = budget.lock
        self._tree = PrefixTree()
        self._reused: I32Array = np.empty(0, np.int32)  # the last prefix that a second prompt shared
        budget.make_room = self._free

    @property
    def nbytes(self) -> int:
        """Bytes of the entries in memory."""
        return self._tree.nbytes

    def touch(self, tokens: Sequence[int]) -> None:
        """Note that the prefix of ``tokens`` is about to be used, so that others are dropped first."""
        with self._lock:
            self._tree.match(_ids(tokens))

    def find(self, tokens: Sequence[int], beyond: int, cache: Cache) -> list[Rows]:
        """The rows of ``tokens`` from position ``beyond`` on, as far as they are known, in consecutive pieces.

        Args:
            tokens: of the prompt.
            beyond: tokens whose entries the caller has.
            cache: that the rows are for.
        """
        ids = _ids(tokens)
        with self._lock:
            runs = self._with_folder(ids, self._tree.match(ids), beyond, cache)
            n = _length(runs) // self.grain * self.grain
            if n <= beyond:
                return []
            self._reused = ids[:n].copy()
            return cut(runs, beyond, n)

    def store(self, tokens: Sequence[int], cache: Cache) -> None:
        """Keep the entries of ``tokens``, the first that ``cache`` holds."""
        ids = _ids(tokens)
        ids = ids[: len(ids) // self.grain * self.grain]
        with self._lock:
            self._write(self._reused)
            held = _length(self._tree.match(ids))
            if held < len(ids) and self._take((len(ids) - held) * cache.bytes_per_token):
                self._insert(ids, held, cache.rows(held, len(ids)))

    def close(self) -> None:
        """Write the prefix that was used last, and drop all entries."""
        with self._lock:
            self._write(self._tree.latest())
            self._free(self._tree.nbytes)
            self._limit_bytes = 0  # an answer that ends later keeps nothing

    def _with_folder(self, ids: I32Array, runs: list[Run], beyond: int, cache: Cache) -> list[Run]:
        """``runs``, or longer ones from a file, whose entries are put into the tree."""
        if self._folder is None or (found := self._folder.find(ids, max(_length(runs), beyond))) is None:
            return runs
        file, tokens = found
        n_bytes = len(tokens) * cache.bytes_per_token
        if not self._take(n_bytes):  # before anything is read
            return runs
        rows = self._folder.read(file, cache)
        if rows is None:
            self._budget.give_back(n_bytes)
        else:
            held = _length(self._tree.match(tokens))
            self._budget.give_back(held * cache.bytes_per_token)
            self._tree.insert(tokens, tuple(plane[:, :, held:].copy() for plane in rows) if held else rows)
        return self._tree.match(ids)

    def _insert(self, ids: I32Array, held: int, rows: Rows) -> None:
        """Add rows, for which memory was taken; unless making room for them dropped what comes before them."""
        if _length(self._tree.match(ids)) == held:
            self._tree.insert(ids, rows)
        else:
            self._budget.give_back(sum(plane.nbytes for plane in rows))

    def _take(self, n_bytes: int) -> bool:
        """Take memory for new entries, in exchange for those used longest ago."""
        if n_bytes > min(self._limit_bytes, self._tree.nbytes + self._budget.free_bytes):
            return False  # before anything is dropped in vain
        while self._tree.nbytes + n_bytes > self._limit_bytes or not self._budget.take(n_bytes):
            if not self._evict():
                return False
        return True

    def _free(self, n_bytes: int) -> None:
        """Drop entries of at least ``n_bytes``, if there are as many."""
        freed = 0
        while freed < n_bytes and (evicted := self._evict()):
            freed += evicted

    def _evict(self) -> int:
        n_bytes = self._tree.evict()
        self._budget.give_back(n_bytes)
        return n_bytes

    def _write(self, ids: I32Array) -> None:
        """Write a prefix into the folder, if it is worth that."""
        if self._folder is None or not self._folder.wants(ids):
            return
        pieces = cut(self._tree.match(ids), 0, len(ids))
        joined = (np.concatenate(planes, axis=2) for planes in zip(*pieces, strict=True))
        rows = pieces[0] if len(pieces) == 1 else tuple(joined)
        if rows and rows[0].shape[2] == len(ids):  # not, if it was dropped meanwhile
            self._folder.write(ids, rows)


def _ids(tokens: Sequence[int]) -> I32Array:
    return np.asarray(tokens, np.int32)


def _length(runs: Sequence[Run]) -> int:
    return sum(run.n for run in runs)
