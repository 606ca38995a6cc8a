"""A library that kills its process is detected in a child process; the result is cached. The children here are real."""

import json
import os
import signal

import pytest

from sprat.errors import BackendError
from sprat.runtime.backends import llamacpp_probe as probing
from sprat.runtime.backends.llamacpp_probe import ProbeReport, probe

ABORTS = """
import os, sys
print("ggml-backend.cpp:898: GGML_ASSERT(*id != -1) failed", file=sys.stderr)
print("[New LWP 7]", file=sys.stderr)
os.abort()
"""
KILLED = {
    "SIGABRT": ABORTS,
    "SIGILL": "import os, signal\nos.kill(os.getpid(), signal.SIGILL)",
    "SIGKILL": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
}
# Aborts with repacked buffers, as builds with AMX do on MoE models.
AMX = """
class Ggml:
    _name = "libllama.so"
    def __getattr__(self, name): return lambda *_: 1  # one device: the CPU
class Library:
    _lib = Ggml()
    class Params: use_extra_bufts = True
    def llama_log_callback(self, function): return function
    def llama_log_set(self, *_): pass
    def llama_model_default_params(self): return self.Params()
    def llama_model_load_from_file(self, path, params):
        if params.use_extra_bufts:
            import os
            os.abort()
        raise SystemExit(0)  # loaded
llama_cpp = Library()
"""
REFUSES = AMX.replace("if params.use_extra_bufts:", "if False:").replace("raise SystemExit(0)", "return None")


@pytest.fixture
def llama_cpp(tmp_path, monkeypatch):
    """Writes a fake llama_cpp module for the children; the cache folder is new."""
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "0.3.36")
    return (tmp_path / "llama_cpp.py").write_text


@pytest.mark.parametrize("name", KILLED)
def test_a_child_that_is_killed_becomes_an_error_with_a_remedy(llama_cpp, tmp_path, name):
    llama_cpp(KILLED[name])
    with pytest.raises(BackendError, match=f"x.gguf.*{name}") as died:
        probe(tmp_path / "x.gguf")
    remedy = "lack of memory" if name == "SIGKILL" else "CMAKE_ARGS="
    assert remedy in str(died.value)
    if name == "SIGABRT":  # the failed assertion is quoted, without its backtrace
        assert "(SIGABRT: ggml-backend.cpp:898: GGML_ASSERT(*id != -1) failed)" in str(died.value)


SANDBOXED = """
import socket
try:
    socket.socket()
except PermissionError:
    raise SystemExit("no network here")
"""


def test_the_child_of_an_isolated_model_is_in_a_sandbox(llama_cpp, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)  # the child cannot write what it measures
    llama_cpp(SANDBOXED)
    with pytest.raises(BackendError, match="no network here"):
        probe(tmp_path / "x.gguf", readable=[tmp_path / "x.gguf", tmp_path / "llama_cpp.py"])


def test_the_second_try_is_without_repacked_buffers(llama_cpp, tmp_path):
    llama_cpp(AMX)
    assert probe(tmp_path / "x.gguf") == ProbeReport(use_extra_bufts=False)


def test_a_file_that_llama_cpp_rejects_is_not_a_crash(llama_cpp, tmp_path):
    llama_cpp(REFUSES)
    with pytest.raises(BackendError, match=r"x.gguf: llama.cpp cannot load this file; sprat inspect"):
        probe(tmp_path / "x.gguf")


@pytest.fixture
def tries(tmp_path, monkeypatch):
    """Replaces children by their outcomes; returns the list of those started."""
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "0.3.36")
    started = []

    def one_try(_path, _on_gpu, _readable, *, use_extra_bufts):
        started.append(use_extra_bufts)
        return probing.ChildOutcome(-signal.SIGABRT if use_extra_bufts else 0, "")

    monkeypatch.setattr(probing, "_try", one_try)
    return started


def test_the_working_settings_are_cached(tries, tmp_path):
    for _ in range(3):
        assert probe(tmp_path / "x.gguf") == ProbeReport(use_extra_bufts=False)
    assert tries == [True, False]
    (cached,) = (tmp_path / "cache" / "sprat" / "probes").iterdir()
    assert json.loads(cached.read_text()) == {"use_extra_bufts": False}


def test_another_version_of_the_library_is_probed_again(tries, tmp_path, monkeypatch):
    probe(tmp_path / "x.gguf")
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "0.3.37")
    probe(tmp_path / "x.gguf")
    assert len(tries) == 4


def test_another_file_under_the_same_name_is_probed_again(tries, tmp_path):
    probe(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF+")
    probe(tmp_path / "x.gguf")
    assert len(tries) == 4


def test_failures_are_not_cached(tries, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(probing, "_try", lambda *_, **__: probing.ChildOutcome(-signal.SIGILL, ""))
        with pytest.raises(BackendError, match="SIGILL"):
            probe(tmp_path / "x.gguf")
    assert probe(tmp_path / "x.gguf") == ProbeReport(use_extra_bufts=False)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"use_extra_bufts": 3}'])
def test_a_damaged_cache_file_is_ignored(tries, tmp_path, damage):
    probe(tmp_path / "x.gguf")
    (cached,) = (tmp_path / "cache" / "sprat" / "probes").iterdir()
    cached.write_bytes(damage)
    assert probe(tmp_path / "x.gguf") == ProbeReport(use_extra_bufts=False)
    assert len(tries) == 4


def test_a_cache_folder_that_cannot_be_created_is_not_an_error(tries, tmp_path):
    (tmp_path / "cache").write_text("a file instead of a folder")
    assert probe(tmp_path / "x.gguf") == ProbeReport(use_extra_bufts=False)
