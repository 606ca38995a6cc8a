"""README.md has a row for every entry of the first attack, and each test that it names exists."""

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ENTRIES = [
    *(f"A{n}" for n in range(1, 7)),
    *(f"B{n}" for n in range(7, 13)),
    *(f"C{n}" for n in range(13, 18)),
    *(f"D{n}" for n in range(1, 19)),
    *(f"E{n}" for n in range(18, 22)),
    *(f"F{n}" for n in range(22, 28)),
]
ROWS = dict(re.findall(r"^\| ([A-F]\d+) \|(.*)\|$", (TESTS / "attacks/README.md").read_text(encoding="utf-8"), re.M))


def test_every_entry_has_a_row():
    assert list(ROWS) == ENTRIES


@functools.cache
def functions_in(path):
    """The tests that pytest collects from a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_tests_of_a_row_exist(entry):
    named = re.findall(r"`(\S+\.py)::(\w+)`", ROWS[entry])
    assert named
    assert [f"{file}::{name}" for file, name in named if name not in functions_in(TESTS / file)] == []
