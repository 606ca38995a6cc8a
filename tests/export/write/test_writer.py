import errno
import hashlib
import itertools
import os
import pathlib
import resource
import subprocess
import sys

import gguf
import numpy as np
import pytest

from sprat.errors import ExportError
from sprat.export.gguf.layout import TensorEntry, gguf_layout
from sprat.export.write import writer
from sprat.export.write.writer import write_file
from sprat.files import file_sha256
from sprat.progress import Progress
from sprat.quant.formats import get_format
from sprat.runtime.files.gguf import GGUFFile

METADATA = {
    "general.architecture": "llama",
    "a.uint32": 5,
    "a.int32": -5,
    "a.uint64": 1 << 40,
    "a.int64": -(1 << 40),
    "a.uint16": np.uint16(7),
    "a.float32": 0.1,
    "a.float64": np.float64(0.1),
    "a.bool": True,
    "a.text": "Zürich ☃",
    "a.strings": ["", "a", "ü"],
    "a.int32s": [1, -2],
    "a.bools": [True, False],
    "a.float32s": [0.5, 0.25],
    "a.uint8s": np.arange(3, dtype=np.uint8),
    "a.nothing": [],
}
TENSORS = [
    TensorEntry("token_embd.weight", (6, 64), get_format("Q4_0")),
    TensorEntry("output_norm.weight", (7,), get_format("F32")),
    TensorEntry("blk.0.ffn_up_exps.weight", (3, 5, 32), get_format("Q8_0")),
    TensorEntry("output.weight", (6, 64), get_format("F16")),
]
LAYOUT = gguf_layout(METADATA, TENSORS)


def blocks(entry):
    """Random rows, always the same for a tensor."""
    rng = np.random.default_rng(len(entry.name))
    return entry.format.quantize(rng.standard_normal(entry.shape).astype(np.float32)).reshape(-1)


def pack(entry):
    """The tensor in two chunks."""
    yield from np.split(blocks(entry), [10])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "model.gguf"


def test_the_package_gguf_reads_what_was_written(out):
    write_file(out, LAYOUT, pack)
    reader = gguf.GGUFReader(out)
    found = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert found == {key: value for key, value in METADATA.items() if key not in {"a.float32", "a.uint8s"}} | {
        "a.float32": np.float32(0.1),
        "a.uint8s": [0, 1, 2],
    }
    types = {key: field.types[-1].name.lower() for key, field in reader.fields.items()}
    for key in ("uint32", "int32", "uint64", "int64", "uint16", "float32", "float64", "bool"):
        assert types[f"a.{key}"] == key
        assert types.get(f"a.{key}s", key) == key
    assert [tensor.name for tensor in reader.tensors] == [tensor.name for tensor in TENSORS]
    for tensor, entry in zip(reader.tensors, TENSORS, strict=True):
        assert tensor.tensor_type == entry.format.ggml_type
        assert tuple(tensor.shape) == entry.shape[::-1]
        np.testing.assert_array_equal(tensor.data.reshape(-1).view(np.uint8), blocks(entry))


def test_our_reader_reads_what_was_written(out):
    write_file(out, LAYOUT, pack)
    with GGUFFile.open(out) as file:
        assert file.metadata["a.text"] == "Zürich ☃"
        for entry in TENSORS:
            weight = file.weight(entry.name)
            assert (weight.shape, weight.format) == (entry.shape, entry.format)
            np.testing.assert_array_equal(weight.packed.reshape(-1), blocks(entry))


@pytest.mark.parametrize("alignment", [8, 32, 256, 4096])
def test_every_tensor_begins_on_a_multiple_of_the_alignment(out, alignment):
    layout = gguf_layout(METADATA, TENSORS, alignment=alignment)
    written = write_file(out, layout, pack)
    reader = gguf.GGUFReader(out)
    assert reader.alignment == alignment
    assert [tensor.data_offset % alignment for tensor in reader.tensors] == [0] * len(TENSORS)
    assert written.nbytes == layout.nbytes == out.stat().st_size
    assert out.stat().st_size % alignment == 0
    assert ("general.alignment" in reader.fields) == (alignment != 32)


def test_the_bytes_between_tensors_are_zero(out):
    layout = gguf_layout(METADATA, TENSORS, alignment=4096)
    write_file(out, layout, pack)
    data = out.read_bytes()
    for placed in layout.tensors:
        assert not any(data[placed.begin + placed.tensor.nbytes : placed.end])


def test_only_the_file_remains_and_its_hash_is_returned(out):
    written = write_file(out, LAYOUT, pack)
    assert [path.name for path in out.parent.iterdir()] == ["model.gguf"]
    assert written.sha256 == hashlib.sha256(out.read_bytes()).hexdigest() == file_sha256(out)


def test_progress_counts_bytes_up_to_the_whole_file(out):
    seen = []
    write_file(out, LAYOUT, pack, progress=seen.append)
    assert [event.what for event in seen] == [tensor.name for tensor in TENSORS for _ in range(2)]
    assert all(a.done < b.done for a, b in itertools.pairwise(seen))
    assert seen[-1] == Progress(
        LAYOUT.tensors[-1].begin + TENSORS[-1].nbytes, LAYOUT.nbytes, "output.weight", resumes=True
    )


@pytest.mark.parametrize(
    ("metadata", "tensors", "alignment", "message"),
    [
        ({}, TENSORS, 0, "alignment 0 is not a power of two"),
        ({}, TENSORS, 48, "alignment 48 is not a power of two"),
        ({"schlüssel": 1}, TENSORS, 32, "key 'schlüssel' is not ASCII"),
        ({"": 1}, TENSORS, 32, "key '' is not ASCII"),
        ({"k" * 65536: 1}, TENSORS, 32, "of at most 65535 bytes"),
        ({"a": None}, TENSORS, 32, "key 'a': NoneType cannot be stored"),
        ({"a": ["b", 1]}, TENSORS, 32, "key 'a': list cannot be stored"),
        ({"a": {"b": 1}}, TENSORS, 32, "key 'a': dict cannot be stored"),
        ({"a": np.zeros((2, 2))}, TENSORS, 32, "key 'a': ndarray cannot be stored"),
        ({}, [TENSORS[0]] * 2, 32, "'token_embd.weight' occurs 2 times"),
        ({}, [], 32, "there are no tensors"),
        ({}, [TensorEntry("n" * 64, (4,), get_format("F32"))], 32, "has a name of over 63 bytes"),
    ],
)
def test_what_gguf_does_not_allow_is_an_error(metadata, tensors, alignment, message):
    with pytest.raises(ExportError, match=message):
        gguf_layout(metadata, tensors, alignment=alignment)


def test_one_message_lists_all_problems():
    with pytest.raises(ExportError, match=r"key 'a'.*key 'b'.*occurs 2 times.*alignment 3"):
        gguf_layout({"a": None, "b": None}, [TENSORS[0]] * 2, alignment=3)


class Killed(BaseException):
    """Simulates a killed process; not an Exception, so that no handler catches it."""


def interrupted_after(n_chunks):
    """A ``pack`` that raises ``Killed`` after ``n_chunks`` chunks."""
    done = 0

    def dying(entry):
        nonlocal done
        for chunk in pack(entry):
            if done == n_chunks:
                raise Killed
            done += 1
            yield chunk

    return dying


@pytest.mark.parametrize("n_chunks", range(8))
def test_after_an_interruption_the_same_call_continues_to_the_same_bytes(out, tmp_path, n_chunks):
    whole = write_file(tmp_path / "whole.gguf", LAYOUT, pack)
    with pytest.raises(Killed):
        write_file(out, LAYOUT, interrupted_after(n_chunks), source="s")
    assert not out.exists()
    again = write_file(out, LAYOUT, pack, source="s")
    assert again.sha256 == whole.sha256 == file_sha256(out)
    assert again.n_resumed == n_chunks // 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "whole.gguf"]


@pytest.mark.parametrize("n_chunks", range(8))
def test_writes_end_on_huge_page_boundaries_also_after_continuing(out, monkeypatch, n_chunks):
    monkeypatch.setattr(writer, "_HUGE_PAGE_BYTES", 64)
    write, begins, ends = os.write, [], []

    def recorded(descriptor, data):
        if pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".partial":
            begins.append(os.lseek(descriptor, 0, os.SEEK_CUR))
            ends.append(begins[-1] + len(data))
        return write(descriptor, data)

    with pytest.raises(Killed):
        write_file(out, LAYOUT, interrupted_after(n_chunks))
    with monkeypatch.context() as patched:
        patched.setattr(writer.os, "write", recorded)
        write_file(out, LAYOUT, pack)
    assert begins[0] == (LAYOUT.tensors[n_chunks // 2 - 1].end if n_chunks > 1 else 0)
    assert begins[1:] == ends[:-1]
    assert ends[-1] == LAYOUT.nbytes
    assert not any(begin % 64 for begin in begins[1:])


def test_finished_tensors_are_not_packed_again(out):
    with pytest.raises(Killed):
        write_file(out, LAYOUT, interrupted_after(5))
    packed = []
    write_file(out, LAYOUT, lambda entry: packed.append(entry.name) or pack(entry))
    assert packed == [tensor.name for tensor in TENSORS[2:]]


@pytest.mark.parametrize("damage", ["flip a bit", "cut the end", "flip a bit of the header", "empty", "remove"])
def test_bytes_lost_in_a_power_cut_are_written_again(out, tmp_path, damage):
    whole = write_file(tmp_path / "whole.gguf", LAYOUT, pack)
    with pytest.raises(Killed):
        write_file(out, LAYOUT, interrupted_after(6))
    partial = out.with_name("model.gguf.partial")
    data = bytearray(partial.read_bytes())
    at = {"flip a bit": LAYOUT.tensors[1].begin, "flip a bit of the header": 9}.get(damage)
    if at is not None:
        data[at] ^= 1
    partial.write_bytes({"cut the end": data[: LAYOUT.tensors[2].begin + 1], "empty": b""}.get(damage, data))
    if damage == "remove":
        partial.unlink()
    again = write_file(out, LAYOUT, pack)
    assert again.sha256 == whole.sha256 == file_sha256(out)
    assert again.n_resumed == {"flip a bit": 1, "cut the end": 2}.get(damage, 0)


def test_killed_after_the_rename_the_file_counts_as_complete(out):
    whole = write_file(out, LAYOUT, pack, source="s", keep_journal=True)
    packed = []
    again = write_file(out, LAYOUT, packed.append, source="s")
    assert (packed, again.sha256, again.n_resumed) == ([], whole.sha256, len(TENSORS))
    assert [path.name for path in out.parent.iterdir()] == ["model.gguf"]


def test_another_recipe_starts_over_with_a_note(out):
    with pytest.raises(Killed):
        write_file(out, LAYOUT, interrupted_after(6), source="s")
    other = gguf_layout(METADATA, TENSORS, alignment=64)
    written = write_file(out, other, pack, source="t")
    assert (written.n_resumed, written.note) == (0, "an unfinished file of another recipe was discarded")
    assert gguf.GGUFReader(out).alignment == 64


def test_a_source_that_changed_between_two_runs_starts_over_with_a_note(out):
    with pytest.raises(Killed):
        write_file(out, LAYOUT, interrupted_after(6), source="before")
    written = write_file(out, LAYOUT, pack, source="after")
    assert (written.n_resumed, written.note) == (0, "an unfinished file of another source was discarded")


def test_a_source_that_changes_during_the_export_leaves_no_file(out):
    def changed():
        raise ExportError("the source changed while it was read")

    with pytest.raises(ExportError, match="the source changed while it was read"):
        write_file(out, LAYOUT, pack, check_source=changed)
    assert not out.exists()


def test_an_existing_file_is_kept_until_the_new_one_is_complete(out):
    out.write_bytes(b"older")
    with pytest.raises(Killed):
        write_file(out, LAYOUT, interrupted_after(6))
    assert out.read_bytes() == b"older"
    write_file(out, LAYOUT, pack)
    assert GGUFFile.open(out).metadata["a.uint32"] == 5


def test_a_full_disk_is_an_error_before_anything_is_packed(out, monkeypatch):
    monkeypatch.setattr(writer, "free_bytes", lambda folder: 1000)
    packed = []
    with pytest.raises(ExportError, match=rf"{LAYOUT.nbytes:,} bytes are still to be written and 1,000 are free"):
        write_file(out, LAYOUT, packed.append)
    assert packed == []
    assert list(out.parent.iterdir()) == []


def test_bytes_already_written_do_not_count_as_needed(out, monkeypatch):
    with pytest.raises(Killed):
        write_file(out, LAYOUT, interrupted_after(6))
    missing = LAYOUT.nbytes - out.with_name("model.gguf.partial").stat().st_size
    monkeypatch.setattr(writer, "free_bytes", lambda folder: missing)
    write_file(out, LAYOUT, pack, keep_journal=True)
    monkeypatch.setattr(writer, "free_bytes", lambda folder: 0)
    assert write_file(out, LAYOUT, pack).n_resumed == len(TENSORS)


def test_a_disk_that_fills_up_is_an_error_and_the_next_call_continues(out, monkeypatch):
    write = os.write
    space = LAYOUT.tensors[2].begin + 20

    def filling(descriptor, data):
        nonlocal space
        if space == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        n_written = write(descriptor, data[: min(space, len(data))])
        space -= n_written
        return n_written

    with monkeypatch.context() as patched:
        patched.setattr(writer.os, "write", filling)
        with pytest.raises(ExportError, match=r"No space left on device.*run the same command again to continue"):
            write_file(out, LAYOUT, pack)
    assert not out.exists()
    assert write_file(out, LAYOUT, pack).n_resumed <= 2
    assert GGUFFile.open(out).metadata["a.uint32"] == 5


def test_a_real_file_size_limit_is_an_export_error(out):
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import pathlib, test_writer as test\n"
        "from sprat.errors import ExportError\n"
        "try: test.write_file(pathlib.Path(sys.argv[1]), test.LAYOUT, test.pack)\n"
        "except ExportError as error: print(error)\n"
    )
    limit = LAYOUT.tensors[2].begin + 20
    result = subprocess.run(
        [sys.executable, "-c", script, str(out), pathlib.Path(__file__).parent],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in result.stdout
    assert not out.exists()
    assert write_file(out, LAYOUT, pack).sha256 == file_sha256(out)


@pytest.mark.parametrize("kind", ["a file", "a missing folder", "a folder at the name"])
def test_an_unwritable_path_is_an_export_error(tmp_path, kind):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "taken.gguf").mkdir()
    places = {"a file": "file/x.gguf", "a missing folder": "no/x.gguf", "a folder at the name": "taken.gguf"}
    with pytest.raises(ExportError, match="cannot be written"):
        write_file(tmp_path / places[kind], LAYOUT, pack)


def test_a_second_writer_of_the_same_file_is_an_error(out):
    def second_writer(entry):
        with pytest.raises(ExportError, match="another process is writing this output"):
            write_file(out, LAYOUT, pack)
        return pack(entry)

    assert write_file(out, LAYOUT, second_writer).sha256 == file_sha256(out)
