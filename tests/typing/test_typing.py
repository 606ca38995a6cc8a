"""The public API as type checkers see it: ``app.py`` uses all of it, without one error in strict mode."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sprat

APP = Path(__file__).with_name("app.py")
SOURCES = Path(__file__).parents[2] / "src"


def run(*command, **environment):
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_the_app_uses_every_public_name_but_the_rarer_errors():
    names = {node.id for node in ast.walk(ast.parse(APP.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)}
    assert {name for name in sprat.__all__ if not name.endswith("Error")} - names == {"__version__"}


def check(checker, program):
    """Run a type checker in strict mode over one file, which is alone in its folder."""
    pytest.importorskip(checker)
    if checker == "mypy":
        options = ["--strict", "--config-file=", str(program)]
    else:
        settings = {"extraPaths": [str(SOURCES)], "typeCheckingMode": "strict"}
        (program.parent / "pyrightconfig.json").write_text(json.dumps(settings))
        options = ["--pythonpath", sys.executable, "-p", str(program.parent)]
    return run(sys.executable, "-m", checker, *options, MYPYPATH=str(SOURCES))


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_app_has_no_error(tmp_path, checker):
    checked = check(checker, Path(shutil.copy(APP, tmp_path)))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_wrong_uses_are_errors(tmp_path, checker):
    program = tmp_path / "wrong.py"
    program.write_text("import sprat\n\nsprat.export('demo', 'out', quant=4)\nsprat.no_such_name\n")
    checked = check(checker, program)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert '"quant"' in checked.stdout
    assert "no_such_name" in checked.stdout
