import pathlib

import pytest

from sprat.errors import ExportError
from sprat.export.write.journal import FinishedTensor, Journal, JournalHead

HEAD = JournalHead(layout="d" * 64, source="s" * 64)
FIRST, SECOND = FinishedTensor("a.weight", "1" * 64, "3" * 64), FinishedTensor("b.weight", "2" * 64, "4" * 64)


@pytest.fixture
def path(tmp_path):
    """A journal with a head and two tensors."""
    path = tmp_path / "x.gguf.journal"
    with Journal.open(path) as journal:
        journal.restart(HEAD)
        journal.add(FIRST)
        journal.add(SECOND)
    return path


def test_records_are_read_back(path):
    with Journal.open(path) as journal:
        assert journal.head == HEAD
        assert journal.finished == [FIRST, SECOND]


def test_truncated_at_any_byte_the_complete_lines_remain(path):
    text = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(text) if byte == ord("\n")]
    for length in range(len(text) + 1):
        path.write_bytes(text[:length])
        with Journal.open(path) as journal:
            assert journal.head == (HEAD if length >= ends[0] else None)
            assert journal.finished == [FIRST, SECOND][: sum(length >= end for end in ends[1:])]


@pytest.mark.parametrize(
    "line", [b"\0" * 40, b'{"tensor":"a.weight"}', b"[]", b'{"tensor":"c","prefix":"3","more":1}', b"\xff\xfe"]
)
def test_records_after_a_malformed_line_are_ignored(path, line):
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, lines[2]]) + b"\n")
    with Journal.open(path) as journal:
        assert journal.finished == [FIRST]


@pytest.mark.parametrize(
    "head", [b"", b"no json", b'{"layout":"d","source":"s","journal":99}', b'{"layout":1,"source":"s"}']
)
def test_a_journal_without_a_head_of_this_version_is_empty(path, head):
    path.write_bytes(head + b"\n" + path.read_bytes().split(b"\n", 1)[1])
    with Journal.open(path) as journal:
        assert (journal.head, journal.finished) == (None, [])


def test_keep_deletes_later_records_and_incomplete_lines(path):
    path.write_bytes(path.read_bytes() + b'{"tensor":"c')
    with Journal.open(path) as journal:
        journal.keep(1)
    with Journal.open(path) as journal:
        assert (journal.head, journal.finished) == (HEAD, [FIRST])


def test_a_second_process_cannot_open_the_journal(path):
    with Journal.open(path), pytest.raises(ExportError, match="another process is writing this output"):
        Journal.open(path)
    Journal.open(path).close()


def test_a_link_is_not_followed(path, tmp_path):
    link = tmp_path / "link.journal"
    pathlib.Path(link).symlink_to(path)
    with pytest.raises(ExportError, match=r"link\.journal: cannot be written"):
        Journal.open(link)


def test_a_file_in_place_of_the_folder_is_an_export_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match=r"Not a directory.*choose a writable folder"):
        Journal.open(tmp_path / "file" / "x.journal")
