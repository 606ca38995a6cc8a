"""Replacing a folder where two names cannot be exchanged in one step: one of the two is complete at any moment."""

import errno

import pytest

from sprat.export.write import publish


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """New, old and a name for the replaced one, on a system without the exchange of names."""
    monkeypatch.setattr(publish, "_exchange", lambda *_: False)
    for name in ("new", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path / "new", tmp_path / "out", tmp_path / "replaced"


def test_two_renames_replace_a_folder(folders):
    new, out, replaced = folders
    publish.replace_folder(new, out, replaced)
    assert ((out / "file").read_text(), (replaced / "file").read_text()) == ("new", "out")
    assert not new.exists()


def test_a_second_rename_that_fails_puts_the_folder_back(folders):
    new, out, replaced = folders
    (new / "file").unlink()
    new.rmdir()
    with pytest.raises(FileNotFoundError):
        publish.replace_folder(new, out, replaced)
    assert (out / "file").read_text() == "out"


def test_names_are_exchanged_only_where_the_system_can(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError):
        publish._exchange(tmp_path / "first", tmp_path / "missing")
    monkeypatch.setattr(publish.ctypes, "CDLL", lambda *_, **__: object())  # macOS, musl before 1.2.5
    assert not publish._exchange(tmp_path / "first", tmp_path / "second")


def test_a_file_system_that_cannot_exchange_names_is_not_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_NOT_SUPPORTED", {errno.ENOENT})
    assert not publish._exchange(tmp_path / "missing", tmp_path / "also-missing")
