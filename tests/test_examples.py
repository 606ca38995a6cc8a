"""Every example runs: ``>>>`` in docstrings, Python blocks in documents, and the programs of ``examples/``."""

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoint import write_checkpoint

import sprat

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"
PROGRAMS = sorted(ROOT.glob("examples/**/*.py"))
DOCUMENTS = [
    path
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]
    if path.name != "api.md"  # generated: its blocks are signatures, and its examples those of the docstrings
]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path):
    """The Python blocks of a document, padded so that tracebacks show the document's line numbers."""
    text = path.read_text(encoding="utf-8")
    return ["\n" * text.count("\n", 0, found.start(1)) + found[1] for found in BLOCK.finditer(text)]


def modules_with_examples():
    """Names of sprat's modules with ``>>>``; the rooms are links, which are followed."""
    paths = (Path(folder, name) for folder, _, names in os.walk(SOURCES / "sprat", followlinks=True) for name in names)
    found = [path for path in paths if path.suffix == ".py" and ">>>" in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__") for path in found)


def imports_of_sprat(code):
    """What ``code`` imports of sprat, by module."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name for name in names if name.split(".")[0] == "sprat"}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A folder in which ``out`` is the packaged student in int4."""
    folder = tmp_path_factory.mktemp("student")
    sprat.export("demo", folder / "out", quant="int4")
    return folder


@pytest.fixture(scope="module")
def dense_onnx(tmp_path_factory):
    """A folder in which ``out`` is an ONNX model of a dense student, which onnxruntime-genai loads."""
    pytest.importorskip("onnxruntime_genai")
    folder = tmp_path_factory.mktemp("dense")
    sprat.export(write_checkpoint(folder / "tiny", "qwen2"), folder / "out", formats=["onnx"])
    return folder


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples(name, student):
    module = importlib.import_module(name)
    with sprat.load(student / "out") as engine:
        tests = doctest.DocTestFinder(exclude_empty=True).find(module, name, extraglobs={"engine": engine})
        results = [doctest.DocTestRunner().run(test) for test in tests]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if blocks(path)], ids=lambda path: path.name)
def test_blocks_of_documents(path, request, monkeypatch):
    code = blocks(path)
    folder = request.getfixturevalue("dense_onnx" if "onnxruntime_genai" in "".join(code) else "student")
    monkeypatch.chdir(folder)
    names = {"__name__": "example"}
    for block in code:
        exec(compile(block, path, "exec"), names)


def test_hello_streams_an_answer(student):
    command = [sys.executable, ROOT / "examples" / "hello.py", "out", "What is 347 + 285?"]
    done = subprocess.run(command, cwd=student, capture_output=True, text=True, check=True)
    assert "632" in done.stdout
    assert re.search(r"\n\[stop, \d+\.\d tokens/s\]\n$", done.stdout)


@pytest.mark.parametrize("arguments", [(), ("out",), ("out", "Hello", "again")])
def test_hello_says_what_it_takes(arguments):
    command = [sys.executable, ROOT / "examples" / "hello.py", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("hello: expected a model and a question")


def test_hello_prints_one_line_on_an_error(tmp_path):
    command = [sys.executable, ROOT / "examples" / "hello.py", "no-such-model", "Hello"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("hello: no-such-model")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_import_the_public_api_and_the_tasks_only(path):
    found = imports_of_sprat(path.read_text(encoding="utf-8"))
    assert {name for name in found if not name.startswith("sprat.demo.tasks")} <= {"sprat"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_import_the_public_api_and_the_tasks_only(path):
    found = set().union(*map(imports_of_sprat, blocks(path)))
    assert {name for name in found if not name.startswith("sprat.demo.tasks")} <= {"sprat"}
