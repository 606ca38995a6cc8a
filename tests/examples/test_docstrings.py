"""The ``>>>`` examples in the docstrings of the recipe."""

import doctest
import importlib
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "examples" / "train_student"
MODULES = sorted(path.stem for path in RECIPE.glob("*.py") if ">>>" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
