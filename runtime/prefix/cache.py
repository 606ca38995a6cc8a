"""``PrefixCache``: the KV entries of prompts that an engine has processed, for all of its streams.

Entries in memory are bounded by a limit of their own and by the engine's budget, from which streams come first: those
used longest ago are dropped when a new stream lacks memory. Entries of a file are mapped, and count for neither: a
stream copies them out of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sprat.arrays import I32Array
from sprat.errors import SavedStateError
from sprat.runtime.cache import Cache
from sprat.runtime.memory.cache_budget import CacheBudget
from sprat.runtime.prefix.entries import Entries
from sprat.runtime.prefix.folder import PrefixFolder
from sprat.runtime.prefix.tree import PrefixTree, Run, cut, n_common

__all__ = ["PrefixCache"]

_Prefix: TypeAlias = tuple[I32Array, list[Entries]]  # tokens, and consecutive pieces of their entries


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
        self._is_writing = False
        self._not_kept: I32Array = np.empty(0, np.int32)  # the last prompt for which there was no memory
        budget.make_room = self._free

    @property
    def nbytes(self) -> int:
        """Bytes of the entries in memory."""
        return self._tree.nbytes

    def touch(self, tokens: Sequence[int]) -> None:
        """Note that the prefix of ``tokens`` is about to be used, so that others are dropped first."""
        with self._lock:
            self._tree.match(_ids(tokens))

    def extend(self, cache: Cache, tokens: Sequence[int]) -> None:
        """Append to ``cache``, which holds the first of ``tokens``, the entries of what follows, as far as known."""
        ids = _ids(tokens)
        self._map_longer(ids, cache)
        for entries in self._find(ids, cache):
            try:
                entries.append_to(cache)
            except SavedStateError as error:
                assert entries.file is not None, "entries in memory do not change"
                self._lose(entries.file.watch.path, error)
                return

    def store(self, tokens: Sequence[int], cache: Cache) -> None:
        """Keep the entries of ``tokens``, the first that ``cache`` holds."""
        ids = self._whole_chunks(tokens)
        with self._lock:
            held = _length(self._tree.match(ids))
            if held < len(ids) and self._take((len(ids) - held) * cache.bytes_per_token):
                self._insert(ids, held, Entries(cache.rows(held, len(ids))))

    def write_shared(self, tokens: Sequence[int], cache: Cache) -> None:
        """Write into the folder what two prompts shared.

        It takes as long as the storage does: call it behind an answer. Other threads need not wait.

        Args:
            tokens: of a prompt and its answer, which may be one of the two.
            cache: holds them.
        """
        ids = self._whole_chunks(tokens)
        self._write(lambda: self._held(self._reused))
        self._write(lambda: self._not_held(ids, cache))

    def close(self) -> None:
        """Write the prefix that was used last, and drop all entries."""
        self._write(lambda: self._held(self._tree.latest()))
        with self._lock:
            self._budget.give_back(self._tree.nbytes)
            self._tree = PrefixTree()
            self._limit_bytes = 0  # an answer that ends later keeps nothing

    def _whole_chunks(self, tokens: Sequence[int]) -> I32Array:
        return _ids(tokens)[: len(tokens) // self.grain * self.grain]

    def _find(self, ids: I32Array, cache: Cache) -> list[Entries]:
        with self._lock:
            runs = self._tree.match(ids)
            n = _length(runs) // self.grain * self.grain
            if n <= cache.length:
                return []
            self._reused = ids[:n].copy()
            return cut(runs, cache.length, n)

    def _map_longer(self, ids: I32Array, cache: Cache) -> None:
        """Put the entries of a file into the tree, if one shares more with ``ids``; reads it while others go on."""
        with self._lock:
            held = max(_length(self._tree.match(ids)), cache.length)
            found = self._folder.find(ids, held) if self._folder is not None else None
        if self._folder is None or found is None:
            return
        file, tokens = found
        try:
            entries = self._folder.read(file, cache)
        except (SavedStateError, OSError) as error:
            self._lose(file, error)
            return
        with self._lock:
            if self._take(entries.nbytes):
                self._insert_whole(tokens, entries)

    def _insert_whole(self, tokens: I32Array, entries: Entries) -> None:
        """Add a whole prefix, for which memory was taken, as far as the tree does not hold it."""
        held = _length(self._tree.match(tokens))
        new = entries.detached(held, entries.n) if held else entries
        self._budget.give_back(entries.nbytes - new.nbytes)
        if new.n:
            self._tree.insert(tokens, new)

    def _lose(self, file: Path, error: Exception) -> None:
        """Forget a file that is damaged, or changed while it was mapped."""
        with self._lock:
            assert self._folder is not None, "it is the folder's file"
            self._folder.drop(file, error)
            self._drop_mapped()

    def _drop_mapped(self) -> None:
        """Drop the entries of files that the folder has no more, which would take up the storage until the end."""
        folder = self._folder
        if folder is not None:
            self._budget.give_back(self._tree.drop_mapped(lambda file: file.watch.path not in folder))

    def _insert(self, ids: I32Array, held: int, entries: Entries) -> None:
        """Add entries, for which memory was taken; unless making room for them dropped what comes before them."""
        if _length(self._tree.match(ids)) == held:
            self._tree.insert(ids, entries)
        else:
            self._budget.give_back(entries.nbytes)

    def _take(self, n_bytes: int) -> bool:
        """Take memory for new entries, in exchange for those used longest ago."""
        if n_bytes > min(self._limit_bytes, self._tree.nbytes + self._budget.free_bytes):
            return False  # before anything is dropped in vain
        while self._tree.nbytes + n_bytes > self._limit_bytes or not self._budget.take(n_bytes):
            if not self._tree.nbytes:
                return False
            self._evict()
        return True

    def _free(self, n_bytes: int) -> None:
        """Drop entries of at least ``n_bytes``, if there are as many."""
        left = max(0, self._tree.nbytes - n_bytes)
        while self._tree.nbytes > left:
            self._evict()

    def _evict(self) -> None:
        self._budget.give_back(self._tree.evict())

    def _held(self, ids: I32Array) -> _Prefix:
        """A prefix of the tree; without entries if it was dropped meanwhile."""
        pieces = cut(self._tree.match(ids), 0, len(ids))
        return ids, pieces if sum(piece.n for piece in pieces) == len(ids) else []

    def _not_held(self, ids: I32Array, cache: Cache) -> _Prefix:
        """What a prompt, for whose entries there is no memory, shares with the last one of that kind."""
        if _length(self._tree.match(ids)) == len(ids):
            return ids, []
        n, n_before = n_common(self._not_kept, ids) // self.grain * self.grain, len(self._not_kept)
        self._not_kept = ids
        return ids[:n], [Entries(cache.views(0, n))] if n < n_before else []  # or one conversation goes on

    def _write(self, choose: Callable[[], _Prefix]) -> None:
        """Write a prefix into the folder, if it is worth that and no other thread writes."""
        folder = self._folder
        if folder is None:
            return
        with self._lock:
            ids, pieces = choose()
            if self._is_writing or not pieces or not folder.wants(ids):
                return
            self._is_writing = True
        try:
            file = folder.write(ids, pieces)
        finally:
            self._is_writing = False
        if file is not None:
            with self._lock:
                folder.add(file, ids)
                self._drop_mapped()


def _ids(tokens: Sequence[int]) -> I32Array:
    return np.asarray(tokens, np.int32)


def _length(runs: Sequence[Run]) -> int:
    return sum(run.n for run in runs)
