"""The radix tree: prefixes are held once, and what was used longest ago goes first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.runtime.files.mapped_file import GuardedMap
from sprat.runtime.prefix.entries import Entries
from sprat.runtime.prefix.tree import PrefixTree, cut


def ids(text):
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def rows(text, start=0):
    """One plane whose entries are the bytes of the whole prefix so far, so that a wrong place shows."""
    sums = np.cumsum(np.frombuffer(text.encode(), np.uint8).astype(np.float32))
    return Entries((sums[start:].reshape(1, 1, -1, 1),))


def insert(tree, text):
    held = sum(run.n for run in tree.match(ids(text)))
    if held < len(text):
        tree.insert(ids(text), rows(text, held))


def found(tree, text):
    runs = tree.match(ids(text))
    n = sum(run.n for run in runs)
    pieces = cut(runs, 0, n)
    return n, np.concatenate([piece.rows[0].ravel() for piece in pieces]) if pieces else np.empty(0)


def test_the_longest_common_prefix_is_found():
    tree = PrefixTree()
    insert(tree, "You are kind. What?")
    insert(tree, "You are kind. Where?")
    insert(tree, "You were")
    for text, n in {"You are kind. Who": 16, "You": 3, "You were here": 8, "Me": 0, "": 0}.items():
        length, entries = found(tree, text)
        assert length == n
        np.testing.assert_array_equal(entries, rows(text).rows[0].ravel()[:n])


def test_a_common_prefix_is_held_once():
    tree = PrefixTree()
    insert(tree, "a" * 100 + "b")
    insert(tree, "a" * 100 + "c")
    assert tree.nbytes == 102 * 4


def test_the_leaf_that_was_used_longest_ago_goes_first():
    tree = PrefixTree()
    for text in ("xxone", "xxtwo", "yy"):
        insert(tree, text)
    tree.match(ids("xxone"))
    assert tree.evict() == 3 * 4
    assert [found(tree, text)[0] for text in ("xxone", "xxtwo", "yy")] == [5, 2, 2]
    assert [tree.evict() for _ in range(4)] == [3 * 4, 2 * 4, 2 * 4, 0]
    assert tree.nbytes == 0


def test_mapped_entries_go_last_and_take_no_memory(tmp_path):
    (tmp_path / "file").write_bytes(bytes(4096))
    tree, file = PrefixTree(), GuardedMap.open(tmp_path / "file")
    tree.insert(ids("mapped"), Entries(rows("mapped").rows, file))
    insert(tree, "mapped!")
    insert(tree, "me")
    assert tree.nbytes == 4 + 4  # "m" was split off without a copy
    assert [tree.evict() for _ in range(4)] == [4, 4, 0, 0]
    assert found(tree, "m")[0] == 0


def test_what_is_mapped_from_a_file_that_is_gone_is_dropped_with_all_behind_it(tmp_path):
    (tmp_path / "file").write_bytes(bytes(4096))
    tree, file = PrefixTree(), GuardedMap.open(tmp_path / "file")
    insert(tree, "ab")
    tree.insert(ids("abcd"), Entries(rows("abcd", 2).rows, file))
    for end in "ef":
        insert(tree, f"abcd{end}")
    assert tree.drop_mapped(lambda _file: False) == 0
    assert tree.drop_mapped(lambda gone: gone is file) == 2 * 4
    assert tree.nbytes == 2 * 4
    assert found(tree, "abcde")[0] == 2


def test_the_prefix_that_was_used_last_is_known_as_a_whole():
    tree = PrefixTree()
    assert len(tree.latest()) == 0
    for text in ("abcd", "abxy", "q"):
        insert(tree, text)
    tree.match(ids("abcd"))
    assert bytes(tree.latest().astype(np.uint8)) == b"abcd"


@pytest.mark.parametrize("span", [(0, 7), (2, 3), (1, 6), (3, 3)])
def test_a_part_of_the_runs_is_cut_out(span):
    tree = PrefixTree()
    insert(tree, "abcxyz!")
    insert(tree, "abcq")
    pieces = cut(tree.match(ids("abcxyz!")), *span)
    joined = np.concatenate([piece.rows[0].ravel() for piece in pieces]) if pieces else np.empty(0)
    np.testing.assert_array_equal(joined, rows("abcxyz!").rows[0].ravel()[slice(*span)])


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text("ab", max_size=12), st.booleans()), max_size=40))
def test_it_agrees_with_a_set_of_prefixes(steps):
    """Without evictions every prefix of what was inserted is there; with them nothing is wrong."""
    tree, known, evicted = PrefixTree(), {""}, False
    for text, evicts in steps:
        if evicts:
            tree.evict()
            evicted = True
        elif text:
            insert(tree, text)
            known |= {text[:n] for n in range(len(text) + 1)}
        length, entries = found(tree, text)
        np.testing.assert_array_equal(entries, rows(text).rows[0].ravel()[:length])
        best = max(n for n in range(len(text) + 1) if text[:n] in known)
        assert length <= best if evicted else length == best
