"""An output never takes the place of a FIFO, a socket, a device or an input, not even with --force."""

import os
import socket
import stat

import numpy as np
import pytest
from command_line import run
from report_page import records
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.devices.bench.results import write_results
from sprat.errors import SpratError
from sprat.export.quality.imatrix import check_imatrix_place, write_imatrix
from sprat.files import atomic_write


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    sprat.export(write_checkpoint(folder / "student", "qwen2"), folder / "bundle", quant="int8")
    write_results(folder / "results.jsonl", records())
    return folder


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        descriptor = os.open(path.parent, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{descriptor}/{path.name}")  # a socket's path has at most 108 bytes
        os.close(descriptor)


def make_device(path):
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    except OSError:
        pytest.skip("no right to make a device")


COMMANDS = {
    "quantize": lambda models, out: ["quantize", models / "bundle", out, "--quant", "int4", "--force"],
    "report": lambda models, out: ["report", models / "results.jsonl", "-o", out, "--force"],
    "export": lambda models, out: ["export", models / "student", out, "--force"],
    "bench": lambda models, out: ["bench", models / "bundle", "-p", "2", "-n", "1", "-r", "1", "-o", out],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_a_command_replaces_no_special_file(models, tmp_path, capsys, make, command):
    out = tmp_path / "out.svg"
    make(out)
    kind = stat.S_IFMT(out.lstat().st_mode)
    code, _, error = run(capsys, *command(models, out))
    assert code == 2
    assert str(out) in error.splitlines()[-1]
    assert stat.S_IFMT(out.lstat().st_mode) == kind
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_a_session_and_other_small_files_replace_none(models, tmp_path, make):
    out = tmp_path / "out"
    make(out)
    with sprat.load(models / "bundle") as engine, engine.session() as session:
        session.generate("Hi", max_tokens=1).text()
        with pytest.raises(SpratError, match="not a regular file"):
            session.save(out)
    with pytest.raises(OSError, match="not a regular file"):
        atomic_write(out, b"data")
    assert list(tmp_path.iterdir()) == [out]


def test_a_link_that_leads_nowhere_is_replaced_by_force_only(models, tmp_path, capsys):
    out = tmp_path / "out.gguf"
    out.symlink_to("nowhere")
    arguments = ["quantize", models / "bundle", out, "--quant", "int4"]
    code, _, error = run(capsys, *arguments)
    assert (code, "exists; choose another name" in error) == (2, True)
    assert out.is_symlink()
    assert run(capsys, *arguments, "--force")[0] == 0
    assert out.is_file()
    assert not (tmp_path / "nowhere").exists()


def test_a_report_never_replaces_what_it_reads(models, tmp_path, capsys):
    results = tmp_path / "results.jsonl"
    write_results(results, records())
    before = results.read_bytes()
    link = tmp_path / "link.html"
    link.symlink_to(results)
    for out in (results, link):
        code, _, error = run(capsys, "report", results, "-o", out, "--force")
        assert (code, "which the report reads" in error) == (2, True)
    assert results.read_bytes() == before


def test_an_imatrix_replaces_no_other_file_and_not_its_source(models, tmp_path, capsys):
    source = tmp_path / "source.gguf"
    source.write_bytes(next((models / "bundle").glob("*.gguf")).read_bytes())
    (tmp_path / "thesis.gguf").write_text("not an imatrix")
    for path in (source, tmp_path / "thesis.gguf"):
        before = path.read_bytes()
        options = ["--quality", "balanced", "--imatrix-out", path, "--force"]
        code, _, error = run(capsys, "export", source, tmp_path / "out", *options)
        assert (code, "exists and is not an imatrix" in error) == (2, True)
        assert path.read_bytes() == before
    code, _, error = run(capsys, "export", source, tmp_path / "out", "--imatrix-out", tmp_path / "no" / "i.gguf")
    assert (code, "folder does not exist" in error) == (2, True)
    write_imatrix(tmp_path / "i.gguf", {"blk.0.attn_q.weight": np.ones((1, 64), np.float32)}, 9, "text")
    check_imatrix_place(tmp_path / "i.gguf")  # an imatrix may be replaced


def test_a_drawing_replaces_no_file(models, tmp_path, capsys):
    (tmp_path / "thesis.svg").write_text("mine")
    code, _, error = run(capsys, "frontier", models / "student", "-o", tmp_path / "thesis.svg")
    assert (code, "thesis.svg: exists" in error) == (2, True)
    assert (tmp_path / "thesis.svg").read_text() == "mine"
