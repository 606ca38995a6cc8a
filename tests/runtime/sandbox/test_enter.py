"""A thread in the sandbox reads what it is given, and does nothing else to the system."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sprat.errors import BackendError
from sprat.runtime.sandbox import enter, seccomp
from sprat.runtime.sandbox.enter import restrict_thread
from sprat.runtime.sandbox.landlock import landlock_version, restrict_files

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp and Landlock")


def in_sandbox(act, *files):
    """What ``act`` returns or raises in a thread that has entered the sandbox."""
    outcome = []

    def run():
        try:
            restrict_thread(files)
            outcome.append(act())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"text")
    return path


FORBIDDEN = {
    "a socket": lambda _file: socket.socket(),
    "a local socket": lambda _file: socket.socket(socket.AF_UNIX),
    "a pair of sockets": lambda _file: socket.socketpair(),
    "a new file": lambda file: file.with_name("new").open("wb"),
    "a file for writing": lambda file: file.open("r+b"),
    "appending": lambda file: file.open("ab"),
    "truncation as it is opened": lambda file: os.open(file, os.O_RDONLY | os.O_TRUNC),
    "truncation": lambda file: os.truncate(file, 0),
    "a file without a name": lambda file: os.open(file.parent, os.O_TMPFILE | os.O_RDWR),
    "deletion": lambda file: file.unlink(),
    "renaming": lambda file: file.rename(file.with_name("other")),
    "a link": lambda file: file.with_name("link").symlink_to(file),
    "a hard link": lambda file: file.with_name("link").hardlink_to(file),
    "a folder": lambda file: file.with_name("folder").mkdir(),
    "removing a folder": lambda file: file.parent.rmdir(),
    "a FIFO": lambda file: os.mkfifo(file.with_name("fifo")),
    "permissions": lambda file: file.chmod(0o777),
    "times": lambda file: os.utime(file, (0, 0)),
    "attributes": lambda file: os.setxattr(file, "user.sprat", b"1"),
    "a process": lambda _file: os.posix_spawn("/bin/true", ["true"], {}),
    "a fork": lambda _file: os.fork() or os._exit(0),
    "another program": lambda _file: os.execv("/bin/true", ["true"]),
    "a signal to the parent": lambda _file: os.kill(os.getppid(), 0),
    "a signal to all": lambda _file: os.kill(-1, 0),
    "a signal to another by descriptor": lambda _file: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0),
    "higher limits": lambda _file: resource.prlimit(0, resource.RLIMIT_CORE, (0, 0)),
    "another root": lambda file: os.chroot(file.parent),
    "another host name": lambda _file: socket.sethostname("sprat"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_it_cannot_do(name, file):
    assert isinstance(in_sandbox(lambda: FORBIDDEN[name](file), file.parent), PermissionError)
    assert file.read_bytes() == b"text"
    assert list(file.parent.iterdir()) == [file]


def test_it_can_read_what_it_is_given(file):
    assert in_sandbox(file.read_bytes, file) == b"text"


@pytest.mark.parametrize("module", ["json", "numpy", "sprat.errors", "sprat.quant.formats"])
def test_it_can_read_libraries_and_sprat(module):
    path = Path(importlib.import_module(module).__file__)
    assert in_sandbox(path.read_bytes) == path.read_bytes()


def test_threads_of_it_are_in_it_and_can_be_started():
    def thread():
        error = []

        def run():
            try:
                socket.socket()
            except OSError as found:
                error.append(found)

        inner = threading.Thread(target=run)
        inner.start()
        inner.join()
        return error[0]

    assert isinstance(in_sandbox(thread), PermissionError)


def test_other_threads_are_not_in_it(file):
    in_sandbox(lambda: None)
    socket.socket().close()
    file.write_bytes(b"other")


@pytest.mark.skipif(not landlock_version(), reason="no Landlock")
def test_it_cannot_read_anything_else(file):
    other = file.with_name("other")
    other.write_bytes(b"private")
    for path in (other, "/etc/passwd", Path.home()):
        found = in_sandbox(lambda path=path: os.open(path, os.O_RDONLY), file)
        assert isinstance(found, PermissionError), path


def test_without_landlock_nothing_is_done(monkeypatch, file):
    monkeypatch.setattr("sprat.runtime.sandbox.landlock.landlock_version", lambda: 0)
    assert restrict_files([]) is False
    assert file.read_bytes() == b"text"


@pytest.mark.skipif(not landlock_version(), reason="no Landlock")
@pytest.mark.parametrize("version", range(1, landlock_version() + 1))
def test_every_version_of_landlock_forbids_writing(monkeypatch, version, file):
    monkeypatch.setattr("sprat.runtime.sandbox.landlock.landlock_version", lambda: version)
    assert isinstance(in_sandbox(lambda: file.open("r+b"), file.parent), PermissionError)


def test_a_path_that_does_not_exist_is_no_error(tmp_path):
    assert in_sandbox(lambda: "here", tmp_path / "missing") == "here"


def test_a_system_without_libseccomp_is_an_error_with_a_remedy(monkeypatch):
    def missing(_name):
        raise OSError("no such file")

    monkeypatch.setattr(seccomp.ctypes, "CDLL", missing)
    with pytest.raises(BackendError, match="apt install libseccomp2"):
        seccomp.filter_system_calls()


def test_limits_stay_below_those_that_hold_already(monkeypatch):
    """And the process is restricted once they are set, which it can no longer do later."""
    steps = []
    monkeypatch.setattr(enter.resource, "setrlimit", lambda kind, limits: steps.append((kind, limits)))
    monkeypatch.setattr(enter.resource, "getrlimit", lambda _kind: (100, 100))
    monkeypatch.setattr(enter, "restrict_thread", steps.append)
    enter.enter_sandbox(iter([Path("a")]), memory_bytes=1 << 30)
    assert dict(steps[:-1]) == {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_NOFILE: (100, 100),
        resource.RLIMIT_DATA: (100, 100),
    }
    assert steps[-1] == [Path("a")]


LIMITED = """
import resource, sys
from pathlib import Path
from sprat.runtime.sandbox.enter import enter_sandbox
enter_sandbox([], memory_bytes=400 << 20)
import numpy as np
np.ones(20 << 20, np.uint8)
for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
    assert resource.getrlimit(kind) == (0, 0)
try:
    np.ones(500 << 20, np.uint8)
except MemoryError:
    print("refused")
"""


def test_a_process_has_limits():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr
