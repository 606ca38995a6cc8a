import pathlib

import pytest

from sprat.errors import ExportError
from sprat.export.write.journal import FinishedTensor, Journal, JournalHead

HEAD = JournalHead(plan="p" * 64, source="s" * 64)
FIRST, SECOND = FinishedTensor("a.weight", "1" * 64), FinishedTensor("b.weight", "2" * 64)


@pytest.fixture
def path(tmp_path):
    """A journal with a head and two tensors."""
    path = tmp_path / "x.gguf.journal"
    with Journal.open(path) as journal:
        journal.restart(HEAD)
        journal.add(FIRST)
        journal.add(SECOND)
    return path


def test_what_was_noted_is_read_back(path):
    with Journal.open(path) as journal:
        assert journal.head == HEAD
        assert journal.finished == [FIRST, SECOND]


def test_cut_at_any_byte_it_holds_the_whole_lines_before_the_cut(path):
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
def test_a_foreign_line_ends_what_is_believed(path, line):
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, lines[2]]) + b"\n")
    with Journal.open(path) as journal:
        assert journal.finished == [FIRST]


@pytest.mark.parametrize(
    "head", [b"", b"no json", b'{"plan":"p","source":"s","journal":99}', b'{"plan":1,"source":"s"}']
)
def test_without_a_head_of_this_version_it_is_empty(path, head):
    path.write_bytes(head + b"\n" + path.read_bytes().split(b"\n", 1)[1])
    with Journal.open(path) as journal:
        assert (journal.head, journal.finished) == (None, [])


def test_keeping_a_part_forgets_the_rest_and_torn_bytes(path):
    path.write_bytes(path.read_bytes() + b'{"tensor":"c')
    with Journal.open(path) as journal:
        journal.keep(1)
    with Journal.open(path) as journal:
        assert (journal.head, journal.finished) == (HEAD, [FIRST])


def test_a_second_process_is_refused(path):
    with Journal.open(path), pytest.raises(ExportError, match="another process is writing this output"):
        Journal.open(path)
    Journal.open(path).close()


def test_a_link_is_not_followed(path, tmp_path):
    link = tmp_path / "link.journal"
    pathlib.Path(link).symlink_to(path)
    with pytest.raises(ExportError, match=r"link\.journal: cannot be written"):
        Journal.open(link)


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match=r"Not a directory.*choose a folder that can"):
        Journal.open(tmp_path / "file" / "x.journal")
