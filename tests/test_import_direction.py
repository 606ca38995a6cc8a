"""The rooms import one way only: devices <- quant <- runtime <- export <- everything in src/sprat."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ["devices", "quant", "runtime", "export"]  # lowest first
LEAVES = {"sprat.errors", "sprat.native", "sprat._core"}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "sprat")


def points_back(module, room):
    """Whether a file in ``room`` must not import ``module``."""
    if module == "sprat" or not module.startswith("sprat.") or ".".join(module.split(".")[:2]) in LEAVES:
        return False
    target = module.split(".")[1]
    return target not in ROOMS[: ROOMS.index(room) + 1]


@pytest.mark.parametrize("room", ROOMS)
def test_no_arrow_points_back(room):
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for module in imported_modules(path)
        if points_back(module, room)
    ]
    assert wrong == []


def test_the_rule_itself_refuses_an_arrow_back():
    assert points_back("sprat.export.write.writer", "runtime")
    assert points_back("sprat.runtime.arch.spec", "quant")
    assert points_back("sprat.cli", "export")
    assert not points_back("sprat.errors", "devices")
    assert not points_back("sprat.quant.formats", "runtime")


def test_errors_and_native_import_nothing_of_sprat():
    for leaf in ("errors", "native"):
        names = list(imported_modules(ROOT / "src" / "sprat" / f"{leaf}.py"))
        assert not [name for name in names if name.startswith("sprat")]
