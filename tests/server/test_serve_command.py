"""``sprat serve`` as a process: it says when it is ready, ends on SIGTERM, and fails in one line."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from command_line import run

import sprat

SOURCES = str(Path(sprat.__file__).parents[1])
BODY = {"model": "x", "messages": [{"role": "user", "content": "What is 17 plus 25?"}]}


@contextlib.contextmanager
def serving(*arguments, **environment):
    """The command, and its address once it answers."""
    command = [sys.executable, "-m", "sprat", "serve", *map(str, arguments), "--port", "0"]
    paths = os.pathsep.join([SOURCES, *filter(None, sys.path)])
    whole = {**os.environ, "PYTHONPATH": paths, **environment}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=whole) as process:
        line = process.stderr.readline()
        try:
            yield process, re.search(r"http://\S+:\d+(?=/v1)", line)[0]
        finally:
            process.kill()


def test_it_answers_and_ends_on_sigterm(student):
    with serving(student, "--max-tokens", 8) as (process, address):
        reply = httpx.post(f"{address}/v1/chat/completions", json=BODY, timeout=60).json()
        assert reply["usage"]["completion_tokens"] == 8
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_an_answer_that_runs_at_sigterm_is_finished(student):
    with (
        serving(student) as (process, address),
        httpx.stream("POST", f"{address}/v1/chat/completions", json={**BODY, "stream": True}, timeout=60) as response,
    ):
        parts = response.iter_lines()
        next(parts)
        process.send_signal(signal.SIGTERM)
        assert "data: [DONE]" in list(parts)


def test_ctrl_c_ends_it_without_a_traceback(student):
    with serving(student) as (process, _):
        process.send_signal(signal.SIGINT)
        process.wait(60)
        assert "Traceback" not in process.stderr.read()


def test_systemd_hears_that_it_is_ready_alive_and_stopping(student, tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(60)
        with serving(student, NOTIFY_SOCKET=str(path), WATCHDOG_USEC="200000") as (process, _):
            assert [heard.recv(100) for _ in range(4)] == [b"READY=1", *[b"WATCHDOG=1"] * 3]
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            rest = [heard.recv(100)]
            while rest[-1] != b"STOPPING=1":
                rest.append(heard.recv(100))


def test_systemd_is_not_told_where_there_is_none(monkeypatch):
    from sprat.server.systemd import notify

    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


def test_a_name_without_a_file_is_an_address_too(monkeypatch):
    from sprat.server.systemd import notify

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0sprat-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@sprat-test-{os.getpid()}")
        assert notify("READY=1")
        assert heard.recv(100) == b"READY=1"


def test_an_address_in_use_is_one_line(student, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, error = run(capsys, "serve", str(student), "--port", str(taken.getsockname()[1]))
    assert (code, error.count("\n")) == (2, 1)
    assert "Address already in use; choose another port" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host", "0.0.0.0"), "there is no API key"),
        (("--timeout", "0"), "timeout is 0.0"),
        (("--host", "nowhere.invalid", "--api-key", "k"), "cannot listen on nowhere.invalid"),
        (("--memory", "1MB", "--port", "0"), "needs"),
    ],
)
def test_what_cannot_be_served_is_one_line(student, capsys, monkeypatch, arguments, message):
    monkeypatch.delenv("SPRAT_API_KEY", raising=False)
    code, _, error = run(capsys, "serve", str(student), *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


@pytest.mark.parametrize("host", ["a\0b", "x" * 300, "\udcff", ".", "256.1.1.1", "[/x]", ""])
def test_a_host_that_is_no_name_is_an_error(student, host):
    with pytest.raises(sprat.SpratError):
        sprat.serve(str(student), host=host, api_key="k")


@pytest.mark.parametrize("wrong", [{"models": 3}, {"models": []}, {"port": "80"}, {"parallel": 0.5}, {"origins": 3}])
def test_arguments_of_another_type_are_errors(student, wrong):
    with pytest.raises(sprat.InputError):
        sprat.serve(**{"models": str(student), "host": "nowhere.invalid", "api_key": "k", **wrong})


def test_a_missing_model_is_one_line(capsys):
    code, _, error = run(capsys, "serve", "no-such-model")
    assert (code, error.count("\n")) == (2, 1)
    assert "no-such-model" in error


def test_missing_libraries_are_named(student, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, error = run(capsys, "serve", str(student))
    assert code == 2
    assert "the server needs uvicorn: pip install 'sprat[serve]'" in error


def test_an_unknown_option_of_loading_is_named():
    with pytest.raises(TypeError, match="serve"):
        sprat.serve("demo", contxt=5)
