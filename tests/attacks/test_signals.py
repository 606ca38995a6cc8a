"""SIGBUS outside of sprat's maps is what it was before: the previous handler's, or the end of the process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from native_kernels import needs_native

pytestmark = needs_native

PRELUDE = """
import faulthandler, mmap, os, signal, sys, tempfile
import numpy as np
from pathlib import Path
from sprat.runtime.files.mapped_file import GuardedMap

def truncated(guarded):
    file = tempfile.NamedTemporaryFile()
    file.write(bytes(range(256)) * 64)
    file.flush()
    mapped = GuardedMap.open(Path(file.name)) if guarded else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(file.name, 0)
    return np.frombuffer(mapped, np.uint8)
"""


def run(script, *options):
    command = [sys.executable, *options, "-c", PRELUDE + script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_map_of_others_still_ends_the_process():
    done = run("assert not truncated(True).any()\nprint('read', flush=True)\ntruncated(False).sum()")
    assert done.stdout == "read\n"
    assert done.returncode == -signal.SIGBUS


@pytest.mark.parametrize("enable", ["before", "after"])
def test_faulthandler_still_reports_a_map_of_others(enable):
    switch = "faulthandler.enable()\n"
    guarded = "guarded = truncated(True)\nassert not guarded.any()\n"
    script = switch + guarded if enable == "before" else guarded + switch + "assert not truncated(True).any()\n"
    done = run(script + "print('read', flush=True)\ntruncated(False).sum()")
    assert done.stdout == "read\n"
    assert "Fatal Python error: Bus error" in done.stderr
    assert done.returncode == -signal.SIGBUS


def test_a_signal_that_is_sent_ends_the_process():
    done = run("assert not truncated(True).any()\nos.kill(os.getpid(), signal.SIGBUS)\nprint('lived')")
    assert (done.stdout, done.returncode) == ("", -signal.SIGBUS)


def test_a_signal_that_is_sent_reaches_the_handler_of_python():
    script = "signal.signal(signal.SIGBUS, lambda *_: print('handled'))\nassert not truncated(True).any()\n"
    done = run(script + "os.kill(os.getpid(), signal.SIGBUS)\nprint('lived')")
    assert (done.stdout, done.returncode) == ("handled\nlived\n", 0)


def test_a_guard_ends_with_its_map():
    script = """
import gc
for _ in range(1000):
    assert not truncated(True).any()
gc.collect()
print(len(os.listdir('/proc/self/fd')), flush=True)
truncated(False).sum()
"""
    done = run(script)
    assert int(done.stdout) < 20
    assert done.returncode == -signal.SIGBUS
