"""What is public is exactly ``sprat.__all__``, for people, for programs and for type checkers."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoint import write_checkpoint

import sprat
from sprat import errors

FUNCTIONS = {"bench", "evaluate", "export", "inspect", "load", "plan", "quantize", "report", "verify"}
FUNCTIONS |= {"estimate_export", "serve"}
CLASSES = {"AsyncEngine", "AsyncSession", "Engine", "Session"}
ROOT = Path(__file__).parents[1]


def imported_names():
    """Every name that ``sprat/__init__.py`` imports from sprat, also under TYPE_CHECKING: its module."""
    tree = ast.parse(Path(sprat.__file__).read_text(encoding="utf-8"))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("sprat."))
    return {alias.asname or alias.name: node.module for node in found for alias in node.names}


def error_names():
    return {name for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, Exception)}


def test_all_names_functions_classes_errors_and_the_version():
    assert set(sprat.__all__) == FUNCTIONS | CLASSES | error_names() | {"__version__"}
    assert sprat.__all__ == sorted(sprat.__all__)


def test_dir_shows_what_is_public():
    assert dir(sprat) == sprat.__all__


def test_type_checkers_see_what_is_public():
    assert imported_names().keys() | {"__version__"} == set(sprat.__all__)


@pytest.mark.parametrize("name", sorted(FUNCTIONS | CLASSES))
def test_a_name_is_what_type_checkers_take_it_for(name):
    found, stated = getattr(sprat, name), getattr(importlib.import_module(imported_names()[name]), name)
    assert inspect.signature(found) == inspect.signature(stated)
    assert found is stated or name == "export"


@pytest.mark.parametrize("name", sorted(FUNCTIONS | CLASSES))
def test_every_public_name_is_documented(name):
    found = importlib.import_module("sprat.app.export").export if name == "export" else getattr(sprat, name)
    assert len(inspect.getdoc(found)) > 40


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sprat' has no attribute 'Enginee'"):
        _ = sprat.Enginee


def test_the_version_is_the_installed_one():
    assert sprat.__version__ == importlib.import_module("importlib.metadata").version("sprat")


def test_export_is_callable_like_a_function(tmp_path):
    result = sprat.export("demo", tmp_path / "out", quant="int4")
    assert result.path == tmp_path / "out"
    with pytest.raises(TypeError, match="unknown keyword 'quantization'; did you mean 'quant'"):
        sprat.export("demo", tmp_path / "other", quantization="int4")


@pytest.mark.parametrize(
    "imports",
    [
        "import sprat",
        "import sprat, sprat.export.pipeline",
        "import sprat.export.write.writer; import sprat",
        "import sprat; sprat.Engine; sprat.export; sprat.verify; import sprat.export.source.checkpoint",
        "from sprat import export; import sprat; sprat.export = export",
        "from sprat import *; import sprat; assert export is sprat.export",
    ],
)
def test_export_is_callable_after_any_imports(tmp_path, imports):
    source = write_checkpoint(tmp_path / "tiny", "llama")
    program = f"{imports}\nprint(sprat.export({str(source)!r}, {str(tmp_path / 'out')!r}, quant='int8').path)"
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == str(tmp_path / "out")


def test_the_api_page_is_up_to_date():
    subprocess.run([sys.executable, ROOT / "docs" / "make_api.py", "--check"], check=True)


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in sprat.__all__ if f"sprat.{name}" not in page] == []
