"""Inputs without an end, and no memory: one line and status 2, and no minutes before it."""

import io
import os
import subprocess
import sys

import pytest
from command_line import run
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.boundary import plain_errors
from sprat.cli.answers import chat
from sprat.cli.answers import run as run_command
from sprat.errors import DoesNotFitError


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exhausting")
    sprat.export(write_checkpoint(folder / "student", "qwen2"), folder / "bundle", quant="int8")
    return folder


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_tokenizer_file_of_terabytes_is_refused_before_it_is_hashed(tmp_path, capsys, name):
    source = write_checkpoint(tmp_path / "student", "qwen2")
    try:
        (source / name).touch()
        os.truncate(source / name, 1 << 40)
    except OSError:
        pytest.skip("this file system has no sparse files of a terabyte")
    code, _, error = run(capsys, "export", source, tmp_path / "out", "--quant", "q4_0")
    assert (code, name in error, "larger than" in error) == (2, True, True), error


def test_a_prompt_without_an_end_is_refused(models, capsys, monkeypatch):
    monkeypatch.setattr(run_command, "MAX_INPUT_BYTES", 1000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 5000)))
    code, _, error = run(capsys, "run", models / "bundle", "-")
    assert (code, "standard input has over 1,000 bytes" in error) == (2, True)


def test_a_line_without_an_end_is_refused(models, capsys, monkeypatch):
    monkeypatch.setattr(chat, "MAX_INPUT_BYTES", 1000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\n" + b"x" * 5000)))
    code, out, error = run(capsys, "chat", models / "bundle", "-n", "1")
    assert (code, "a line has over 1,000 characters" in error) == (2, True)
    assert out.startswith("> ")


def test_exhausted_memory_is_a_sprat_error():
    with pytest.raises(DoesNotFitError, match="memory is exhausted"), plain_errors():
        bytearray(1 << 62)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize("limit_mib", [200, 300, pytest.param(400, marks=pytest.mark.slow)])
def test_an_export_that_gets_no_memory_ends_in_one_line(models, tmp_path, limit_mib):
    command = f'ulimit -v {limit_mib << 10}; exec "$@"'
    arguments = [sys.executable, "-m", "sprat", "export", models / "student", tmp_path / "out", "--quant", "q4_0"]
    done = subprocess.run(["sh", "-c", command, "sh", *arguments], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == (0 if (tmp_path / "out").exists() else 2), done.stderr
    if done.returncode:
        assert done.stderr.splitlines()[-1].startswith("sprat: ")
