"""The C++ sources keep to 100 columns, `.clang-format` has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted(
    path
    for folder in ("devices/native", "quant/native", "runtime/native", "src/sprat", "tests/runtime/kernels")
    for path in (ROOT / folder).rglob("*.[ch]pp")
)


def test_sources_are_found():
    assert {"table.cpp", "codec.hpp", "native_check.cpp", "_core.cpp"} <= {path.name for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_fit_100_columns_without_tabs(path):
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    assert [number for number, line in lines if len(line) > 100 or "\t" in line] == []
