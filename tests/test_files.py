"""Input files that are not regular, too large, nested or malformed; JSON and TOML from outside."""

import errno
import os
import stat

import pytest

from sprat.boundary import plain_errors, public_call
from sprat.errors import InputError, SpratError
from sprat.files import DocumentError, cache_folder, open_input, parse_json, parse_toml, read_input, read_text

DEEP = 100_000


def reason(path):
    with pytest.raises(OSError) as caught:
        open_input(path)
    return caught.value.strerror


def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe") == "not a regular file"


def test_a_link_to_a_device_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("/dev/zero")
    assert reason(tmp_path / "link") == "not a regular file"


def test_a_fifo_that_replaces_the_file_while_it_is_opened_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    os.mkfifo(path)
    seen = []

    def check(status):
        seen.append(status)
        return len(seen) == 1 or stat.S_IFMT(status) == stat.S_IFREG

    monkeypatch.setattr(stat, "S_ISREG", check)
    assert reason(path) == "not a regular file"
    assert len(seen) == 2


def test_other_names_are_errors_of_the_operating_system(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert reason(tmp_path) == "Is a directory"
    assert reason(tmp_path / "loop") == "Too many levels of symbolic links"
    assert reason(tmp_path / ("x" * 300)) == "File name too long"
    assert reason(tmp_path / "a\0b") == "no file can have this name"
    assert reason(tmp_path / "\ud800") == "no file can have this name"


def test_a_file_larger_than_the_limit_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(bytes(11))
    assert read_input(tmp_path / "file", 11) == bytes(11)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_input(tmp_path / "file", 10)


def test_text_is_utf8(tmp_path):
    (tmp_path / "file").write_bytes(b"a\xff")
    assert read_text(tmp_path / "file", errors="replace") == "a\ufffd"
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "file")


@pytest.mark.parametrize(
    "data",
    [
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b"",
        b"\xff",
        b'"\xff"',
        b'"\\ud800"',
        b"nan",
        b"1e",
    ],
    ids=lambda data: repr(data[:8]),
)
def test_json_that_cannot_be_read_is_one_kind_of_error(data):
    with pytest.raises(DocumentError) as caught:
        parse_json(data)
    assert str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"a = " + b"[" * DEEP, b"a = " + b"{a=" * DEEP, b"a = " + b"9" * 5000, b"\xff", b"a"],
    ids=lambda data: repr(data[:8]),
)
def test_toml_that_cannot_be_read_is_one_kind_of_error(data):
    with pytest.raises(DocumentError) as caught:
        parse_toml(data)
    assert str(caught.value)


def test_documents_are_read_as_the_type_asked_for():
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', dict[str, int]) == {"a": 1}
    assert parse_toml(b"a = 1", dict[str, int]) == {"a": 1}
    for parse, data in ((parse_json, b'{"a": "b"}'), (parse_toml, b'a = "b"')):
        with pytest.raises(DocumentError, match="Expected `int`"):
            parse(data, dict[str, int])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), InputError),
        (OSError(errno.EIO, "Input/output error", "x"), SpratError),
        (OSError("odd"), SpratError),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), InputError),
        (RecursionError(), InputError),
    ],
)
def test_the_boundary_turns_errors_of_the_system_into_ours(error, kind):
    @public_call
    def fails():
        raise error

    with pytest.raises(SpratError) as caught:
        fails()
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


def test_the_boundary_leaves_other_errors_and_results_alone():
    @public_call
    def double(value: int) -> int:
        """Twice."""
        return value * 2

    assert double(2) == 4
    assert double.__doc__ == "Twice."
    with pytest.raises(KeyError), plain_errors():
        raise KeyError("x")


def test_a_user_without_a_home_has_a_cache_folder_all_the_same(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert str(cache_folder()) == "/.cache/sprat"
