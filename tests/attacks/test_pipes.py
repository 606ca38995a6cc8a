"""A FIFO in the place of every file that sprat reads: an error that names it, or success without it, never a wait."""

import os
import shutil
import signal
from contextlib import contextmanager

import pytest
from command_line import run
from tiny_checkpoint import write_checkpoint

import sprat

pytestmark = pytest.mark.slow

SECONDS = 20
CHECKPOINT_FILES = [
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json", "vocab.json"),
    *("merges.txt", "model.safetensors", "model.safetensors.index.json", "adapter_config.json", "hf_quant_config.json"),
    *("quantize_config.json", "tiktoken.model", "tokenization_student.py", "preprocessor_config.json"),
]
WITHOUT_TOKENIZER_JSON = {"tokenizer.model", "vocab.json", "merges.txt", "tiktoken.model"}
OPTIONS = {
    "calibration": ["export", "student", "out", "--force", "--quality", "balanced", "--calibration"],
    "adapter": ["export", "student", "out", "--force", "--lora"],
    "size of a file": ["export", "student", "out", "--force", "--match-size"],
    "template": ["export", "student", "out", "--force", "--chat-template"],
    "questions": ["eval", "bundle", "--file"],
    "device": ["plan", "bundle", "--device"],
    "schema": ["run", "bundle", "hello", "-n", "1", "--json-schema"],
    "grammar": ["run", "bundle", "hello", "-n", "1", "--grammar"],
    "results": ["report"],
    "model": ["inspect"],
    "source": ["verify", "bundle", "--source"],
}


@contextmanager
def patience():
    """Fails what waits for longer."""

    def fail(*_):
        raise AssertionError(f"waited for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipes")
    sprat.export(write_checkpoint(folder / "student", "qwen2"), folder / "bundle", quant="int8")
    return folder


@pytest.fixture
def models(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def ends(capsys, *arguments):
    """Exit status and messages; an error names the pipe, or what is wrong without it."""
    with patience():
        code, _, error = run(capsys, *arguments)
    assert code in {0, 2}, error
    assert "Traceback" not in error
    return code, error


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_pipe_in_a_checkpoint(models, capsys, name):
    if name in WITHOUT_TOKENIZER_JSON:
        (models / "student" / "tokenizer.json").unlink()
    put_pipe(models / "student" / name)
    ends(capsys, "export", "student", "out", "--quant", "int8")


def test_a_pipe_in_a_bundle(models, capsys):
    for file in sorted((models / "bundle").iterdir()):
        data = file.read_bytes()
        put_pipe(file)
        ends(capsys, "inspect", "bundle", "--check")
        ends(capsys, "run", "bundle", "hello", "-n", "1", "--raw")
        ends(capsys, "verify", "bundle", "--source", "student", "--max-tokens", "8", "--card")
        file.unlink()
        file.write_bytes(data)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_pipe_of_an_option(models, capsys, option):
    put_pipe(models / "pipe")
    code, error = ends(capsys, *OPTIONS[option], "pipe")
    assert code == 2
    assert "pipe" in error.splitlines()[-1]
