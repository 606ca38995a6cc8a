"""A fingerprint tells models apart, and copies of one do not differ."""

import shutil

import pytest

from sprat.runtime.files.fingerprint import fingerprint


@pytest.fixture
def path(tmp_path):
    (tmp_path / "model").write_bytes(bytes(range(256)) * 4096)
    return tmp_path / "model"


def test_a_copy_has_the_same_fingerprint(path, tmp_path):
    assert fingerprint([path]) == fingerprint([shutil.copy(path, tmp_path / "copy")])


@pytest.mark.parametrize("at", [0, 100, 70_000, 1 << 19, (1 << 20) - 1024])
def test_other_weights_have_another_one(path, at):
    before = fingerprint([path])
    data = bytearray(path.read_bytes())
    data[at : at + 1024] = bytes(1024)
    path.write_bytes(data)
    assert fingerprint([path]) != before


def test_size_and_order_of_files_count(path, tmp_path):
    (tmp_path / "longer").write_bytes(path.read_bytes() + bytes(1))
    (tmp_path / "empty").write_bytes(b"")
    sets = [[path], [tmp_path / "longer"], [path, tmp_path / "empty"], [tmp_path / "empty", path], []]
    assert len({fingerprint(files) for files in sets}) == 5
