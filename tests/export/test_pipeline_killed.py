"""``kill -9`` at random moments: the same command continues, and the bundle has the same bytes."""

import os
import random
import signal
import time

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.export.pipeline import export
from sprat.export.write import writer
from sprat.runtime.files.bundle import Bundle


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "student")


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Small write units: with huge pages, a small file would be written only at its end."""
    monkeypatch.setattr(writer, "_HUGE_PAGE_BYTES", 4096)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """Name -> bytes of the files of an uninterrupted export."""
    return contents(export(source, tmp_path_factory.mktemp("whole") / "out", quant="int4").path)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def export_and_kill(source, out, n_chunks, delay=0.0):
    """Export in a child process, killed ``delay`` seconds after ``n_chunks`` chunks; whether it was still running."""
    reading, writing = os.pipe()

    def report(progress):
        if progress.what != "reading the source":
            os.write(writing, b".")
            time.sleep(0.001)

    child = os.fork()
    if child == 0:
        try:
            export(source, out, quant="int4", progress=report)
        finally:
            os._exit(0)
    os.close(writing)
    for _ in range(n_chunks):
        os.read(reading, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_killed_at_random_moments_the_bytes_are_the_same(source, whole, tmp_path):
    rng = random.Random(7)
    for attempt in range(4):
        out = tmp_path / f"out{attempt}"
        killed = [export_and_kill(source, out, rng.randrange(12), rng.random() * 0.02) for _ in range(5)]
        assert any(killed)
        assert contents(export(source, out, quant="int4").path) == whole
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(out.name)] == [out.name]


def test_finished_tensors_are_kept_after_a_kill(source, tmp_path):
    assert export_and_kill(source, tmp_path / "out", 50)
    assert export(source, tmp_path / "out", quant="int4").n_resumed > 30


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01, 0.03])
def test_killed_near_the_end_there_is_no_bundle_or_a_complete_one(source, whole, tmp_path, delay):
    out = tmp_path / "out"
    export_and_kill(source, out, 58, delay)
    if out.exists():
        Bundle.open(out).check()
    assert contents(export(source, out, quant="int4").path) == whole
