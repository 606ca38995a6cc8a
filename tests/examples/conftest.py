"""The recipe's modules are not a package: they import each other by name."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def recipe():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "examples" / "train_student")
        yield
