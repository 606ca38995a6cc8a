"""``kill -9`` at random moments: the same command continues, and its bundle is the same, byte for byte."""

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
    """Of a file of two huge pages hardly anything would be on the disk before its end."""
    monkeypatch.setattr(writer, "_HUGE_PAGE_BYTES", 4096)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """Name -> bytes of the files of an export that nothing interrupted."""
    return contents(export(source, tmp_path_factory.mktemp("whole") / "out", quant="int4").path)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def export_and_kill(source, out, n_chunks, delay=0.0):
    """Export in a child that is killed ``delay`` seconds after it wrote ``n_chunks``; whether it was still alive."""
    reading, writing = os.pipe()

    def tell(progress):
        if progress.what != "reading the source":
            os.write(writing, b".")
            time.sleep(0.001)

    child = os.fork()
    if child == 0:
        try:
            export(source, out, quant="int4", progress=tell)
        finally:
            os._exit(0)
    os.close(writing)
    for _ in range(n_chunks):
        os.read(reading, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_random_moments_it_ends_with_the_same_bytes(source, whole, tmp_path):
    rng = random.Random(7)
    for attempt in range(4):
        out = tmp_path / f"out{attempt}"
        killed = [export_and_kill(source, out, rng.randrange(12), rng.random() * 0.02) for _ in range(5)]
        assert any(killed)
        assert contents(export(source, out, quant="int4").path) == whole
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(out.name)] == [out.name]


def test_work_that_was_done_is_not_done_again(source, tmp_path):
    assert export_and_kill(source, tmp_path / "out", 50)
    assert export(source, tmp_path / "out", quant="int4").n_resumed > 30


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01, 0.03])
def test_killed_near_its_end_it_leaves_no_bundle_or_a_whole_one(source, whole, tmp_path, delay):
    out = tmp_path / "out"
    export_and_kill(source, out, 58, delay)
    if out.exists():
        Bundle.open(out).check_hashes()
    assert contents(export(source, out, quant="int4").path) == whole
