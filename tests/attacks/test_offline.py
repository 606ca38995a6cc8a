"""Nothing leaves the machine: commands and a session without a network, killed at the first socket that is not local.

Two walls: a network namespace without interfaces, and a seccomp filter (``tests/support/no_network.py``).
"""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bench_records import measurement
from tiny_checkpoint import write_checkpoint

from sprat.cli import group
from sprat.devices.bench.results import write_results

ROOT = Path(__file__).parents[2]
WALL = [sys.executable, ROOT / "tests" / "support" / "no_network.py"]
SESSION = """
import sys, sprat
for backend in sys.argv[2:]:
    with sprat.load(sys.argv[1], backend=backend) as engine, engine.session(overflow="shift") as session:
        for turn in range(40):
            session.chat(f"turn {turn}", max_tokens=8, temperature=0)
        assert len(session.tokens) > 100
"""


def namespace():
    """The command that starts another one without network interfaces; skipped where the system forbids it."""
    command = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-r", "-n"]
    if platform.machine() not in {"x86_64", "aarch64"} or shutil.which("unshare") is None:
        pytest.skip("needs Linux on x86-64 or ARM, and unshare")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system allows no network namespace")
    return command


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A checkpoint, a bundle with both formats, and results."""
    from sprat.export.pipeline import export

    folder = tmp_path_factory.mktemp("offline")
    source = write_checkpoint(folder / "student", "qwen2")
    export(source, folder / "bundle", quant="int8", formats=("gguf", "onnx"))
    write_results(folder / "results.jsonl", [measurement()])
    return folder


def offline(models, *command, text=""):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "XDG_CACHE_HOME": str(models / "cache")}
    return subprocess.run(
        [*namespace(), *WALL, *command],
        cwd=models,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


# Every command but `serve`; `bench --emulate` and `devices probe` measure for long and are left out.
COMMANDS = {
    "export": ["student", "out", "--format", "gguf,onnx"],
    "quantize": ["demo-not-needed"],
    "inspect": ["bundle", "--check"],
    "verify": ["bundle", "--source", "student", "--max-tokens", "16"],
    "run": ["bundle", "hello", "-n", "4"],
    "chat": ["bundle", "-n", "4"],
    "decide": ["bundle", "hello", "--options", "yes,no"],
    "eval": ["bundle", "--task", "arithmetic", "--n", "2"],
    "demo": [],
    "plan": ["bundle", "--all"],
    "frontier": ["student", "--sizes", "q4_0"],
    "bench": ["bundle", "-p", "8", "-n", "4", "-r", "1"],
    "report": ["results.jsonl", "-o", "page.html"],
    "devices": [],
    "doctor": [],
}
FAST = {"export", "run", "inspect"}


def test_a_socket_kills_the_process_and_there_is_no_interface(models):
    killed = offline(models, sys.executable, "-c", "import socket; socket.socket()")
    assert killed.returncode == -signal.SIGSYS
    local = offline(models, sys.executable, "-c", "import socket; socket.socket(socket.AF_UNIX); print('alive')")
    assert local.stdout == "alive\n"
    interfaces = offline(models, "cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_every_command_is_tried():
    assert COMMANDS.keys() | {"serve"} == set(group.list_commands(None))


def test_the_server_answers_and_connects_to_nothing(models):
    namespace()  # this system has the means
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("uvicorn")
    command = [*WALL, "--may-listen", sys.executable, "-m", "sprat", "serve", "bundle", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, cwd=models, env=environment, stderr=subprocess.PIPE, text=True) as server:
        address = re.search(r"http://\S+:\d+(?=/v1)", server.stderr.readline())[0]
        body = {"model": "bundle", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        assert httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).status_code == 200
        server.terminate()
        assert server.wait(60) == 0


@pytest.mark.parametrize(
    "command", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
)
def test_a_command_works_without_a_network(command, models):
    arguments = COMMANDS[command]
    if command == "quantize":
        arguments = [next((models / "bundle").glob("*.gguf")), "quantized.gguf", "--quant", "q4_0"]
    done = offline(models, sys.executable, "-m", "sprat", command, *arguments, text="hello\n/quit\n")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_long_session_works_without_a_network(models):
    done = offline(models, sys.executable, "-c", SESSION, "bundle", "native", "reference", "onnx")
    assert done.returncode == 0, done.stderr


ONNX_SESSION = """
import sys
from sprat.runtime.engine import Engine
with Engine.load(sys.argv[1], backend="onnx") as engine:
    engine.generate("hello", max_tokens=4).text()
"""


@pytest.mark.slow
def test_onnxruntime_asks_for_no_socket_at_all(models, tmp_path):
    """Its telemetry would; seen by the system calls of all its threads, where a filter is not in the way."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "calls"
    trace = ["strace", "--follow-forks", "--trace=network,execve", "--output", log]
    done = subprocess.run(
        [*trace, sys.executable, "-c", ONNX_SESSION, models / "bundle"], capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip("this system allows no tracing")
    calls = log.read_text()
    assert done.returncode == 0, done.stderr
    assert "execve(" in calls, "nothing was traced"
    assert [line for line in calls.splitlines() if "AF_INET" in line or "connect(" in line] == []
