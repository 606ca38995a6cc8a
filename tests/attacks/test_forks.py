"""A child that is forked while another thread generates computes, or is refused with a clear error; it never hangs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from native_kernels import needs_native
from tiny_checkpoint import write_checkpoint

from sprat.export.pipeline import export

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork")

SCRIPT = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of forks of processes with threads
from sprat.errors import BackendError
from sprat.runtime.engine import Engine

path, backend, n_forks, busy = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "busy"
engine = Engine.load(path, backend=backend)

def answer():
    return engine.generate("The quick brown fox", max_tokens=4, temperature=0).text()

def child():
    try:
        return 0 if answer() == expected == answer() else 3
    except BackendError as error:
        return 5 if "forked" in str(error) else 4

def reap(pid):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hangs"

expected = answer()
stop = threading.Event()

def generate():
    while not stop.is_set():
        assert answer() == expected

threads = [threading.Thread(target=generate) for _ in range(2 if busy else 0)]
for thread in threads:
    thread.start()
results = []
for number in range(n_forks):
    time.sleep(0.001 * (number % 7))
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = child()
        finally:
            os._exit(code)
    results.append(reap(pid))
stop.set()
for thread in threads:
    thread.join()
assert answer() == expected
engine.close()
print({result: results.count(result) for result in set(results)})
"""


def results_of(path, backend, n_forks, state):
    command = [sys.executable, "-c", SCRIPT, path, backend, str(n_forks), state]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forks")
    return export(write_checkpoint(folder / "tiny"), folder / "out", quant="int8").bundle


@needs_native
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_child_of_the_native_backend_computes(bundle, state):
    assert results_of(bundle.path, "native", 12, state) == "{0: 12}"


@needs_native
@pytest.mark.slow
def test_many_children_of_the_native_backend_compute(bundle):
    assert results_of(bundle.path, "native", 600, "busy") == "{0: 600}"


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_child_of_onnxruntime_is_refused(tmp_path, state):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = export(write_checkpoint(tmp_path / "tiny"), tmp_path / "out", quant="int8", formats=["onnx"]).bundle
    assert results_of(model.path, "onnx", 2, state) == "{5: 2}"


@needs_native
def test_a_child_that_never_calls_ends(bundle):
    script = SCRIPT.replace(
        "return 0 if answer() == expected == answer() else 3", "engine.close(); globals().pop('engine'); return 0"
    )
    command = [sys.executable, "-c", script, bundle.path, "native", "6", "busy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stdout.strip()) == (0, "{0: 6}"), done.stderr
