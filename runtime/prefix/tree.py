"""``PrefixTree``: a radix tree over token ids that holds the KV entries of every prefix once.

::

    "You are a helpful ..."  (3,000 tokens and their entries)
      ├── "What is the time?"
      └── "Turn on the "
            ├── "light"
            └── "fan"

A node's entries belong to its tokens at the position where the path to it ends; they are valid below that path alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from sprat.arrays import I32Array
from sprat.runtime.files.mapped_file import GuardedMap
from sprat.runtime.prefix.entries import Entries

__all__ = ["PrefixTree", "Run", "cut", "n_common"]


class _Node(msgspec.Struct, eq=False):
    tokens: I32Array
    entries: Entries
    parent: _Node | None
    used: int = 0  # the higher, the later
    children: dict[int, _Node] = msgspec.field(default_factory=dict)  # by their first token

    @property
    def nbytes(self) -> int:
        return self.entries.nbytes


class Run(msgspec.Struct, frozen=True):
    """The first ``n`` tokens of ``entries``."""

    entries: Entries
    n: int


class PrefixTree:
    """Token prefixes and their KV entries. Not for several threads at a time.

    Attributes:
        nbytes: of all entries in memory.
    """

    def __init__(self) -> None:
        self._root = _Node(np.empty(0, np.int32), Entries(()), None)
        self._clock = itertools.count(1)
        self.nbytes = 0

    def match(self, tokens: I32Array) -> list[Run]:
        """The entries of the longest prefix of ``tokens``, in order; its nodes count as used now."""
        return [Run(node.entries, n) for node, n in self._path(tokens)]

    def insert(self, tokens: I32Array, entries: Entries) -> None:
        """Add ``tokens``; ``entries`` are those of its last tokens, from the first that the tree does not hold."""
        path = self._path(tokens)
        start = sum(n for _, n in path)
        parent = self._root
        if path:
            parent, n = path[-1]
            if n < len(parent.tokens):
                parent = self._split(parent, n)
        node = _Node(tokens[start:].copy(), entries, parent, next(self._clock))
        parent.children[int(node.tokens[0])] = node
        self.nbytes += node.nbytes

    def evict(self) -> int:
        """Drop the leaf that was used longest ago, mapped ones last; returns its bytes in memory, 0 without a leaf."""
        leaf = min(self._leaves(), key=lambda node: (node.entries.file is not None, node.used), default=None)
        return 0 if leaf is None else self._drop(leaf)

    def drop_mapped(self, is_gone: Callable[[GuardedMap], bool]) -> int:
        """Drop the entries that are mapped from files that are gone, and what follows them; returns bytes in memory."""
        gone = [node for node in _below(self._root) if node.entries.file is not None and is_gone(node.entries.file)]
        return sum(self._drop(node) for node in gone)

    def _drop(self, top: _Node) -> int:
        """Drop a node and all below it; returns their bytes in memory."""
        if top.parent is None:  # dropped with one above it
            return 0
        del top.parent.children[int(top.tokens[0])]
        dropped = [top, *_below(top)]
        for node in dropped:
            node.parent = None
        n_bytes = sum(node.nbytes for node in dropped)
        self.nbytes -= n_bytes
        return n_bytes

    def latest(self) -> I32Array:
        """The whole prefix that was used last; empty if there is none."""
        node, parts = max(self._leaves(), key=lambda node: node.used, default=self._root), []
        while node.parent is not None:
            parts.append(node.tokens)
            node = node.parent
        return np.concatenate([np.empty(0, np.int32), *reversed(parts)])

    def _path(self, tokens: I32Array) -> list[tuple[_Node, int]]:
        """The nodes that hold a prefix of ``tokens``, and how many tokens of each."""
        node, at, path = self._root, 0, []
        now = next(self._clock)
        while at < len(tokens) and (child := node.children.get(int(tokens[at]))) is not None:
            n = n_common(child.tokens, tokens[at:])
            child.used = now
            path.append((child, n))
            at += n
            if n < len(child.tokens):
                break
            node = child
        return path

    def _split(self, node: _Node, n: int) -> _Node:
        """Put the first ``n`` tokens of ``node`` into a new parent."""
        assert node.parent is not None, "the root has no tokens to split"
        whole = node.entries
        upper = _Node(node.tokens[:n].copy(), whole.detached(0, n), node.parent, node.used)
        node.parent.children[int(upper.tokens[0])] = upper
        node.tokens, node.entries = node.tokens[n:].copy(), whole.detached(n, whole.n)
        node.parent = upper
        upper.children[int(node.tokens[0])] = node
        return upper

    def _leaves(self) -> Iterator[_Node]:
        return (node for node in _below(self._root) if not node.children)


def _below(top: _Node) -> Iterator[_Node]:
    nodes = [*top.children.values()]
    while nodes:
        node = nodes.pop()
        nodes += node.children.values()
        yield node


def n_common(first: I32Array, second: I32Array) -> int:
    """Length of the longest common prefix."""
    n = min(len(first), len(second))
    different = np.flatnonzero(first[:n] != second[:n])
    return int(different[0]) if different.size else n


def cut(runs: Sequence[Run], start: int, stop: int) -> list[Entries]:
    """The entries of tokens ``start`` to ``stop - 1`` of ``runs``; views."""
    found, at = [], 0
    for run in runs:
        first, last = max(start - at, 0), min(stop - at, run.n)
        if first < last:
            found.append(run.entries.part(first, last))
        at += run.n
    return found
