"""A malformed file is a ModelFileError with the offset, and causes neither a crash nor large allocations."""

import contextlib
import random
import tracemalloc

import pytest
from gguf_bytes import MALFORMED, gguf, small, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.errors import ModelFileError
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_checks import check_layout
from sprat.runtime.files.gguf_header import read_header


def parse(data: bytes) -> None:
    """Parse and check bytes as ``GGUFFile.open`` does."""
    check_layout(read_header(memoryview(data), "model.gguf"), file_bytes=len(data), path="model.gguf")


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_an_error(case, tmp_path):
    make, message = MALFORMED[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(make())
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_the_file_with_an_empty_key_has_37_bytes():
    make, _ = MALFORMED["37 bytes with an empty key"]
    assert len(make()) == 37


def test_every_truncation_is_an_error():
    data = small()
    parse(data)
    for length in range(len(data)):
        with pytest.raises(ModelFileError):
            parse(data[:length])


def test_a_message_has_offset_found_expected_and_remedy():
    make, _ = MALFORMED["a string past the end"]
    with pytest.raises(ModelFileError) as caught:
        parse(make())
    assert str(caught.value) == (
        "model.gguf: byte 47: found 17 bytes to the end of the file, expected 1152921504606846976 bytes of "
        "the value of 'a.b'; the file is damaged or incomplete: download or export it again"
    )


def test_all_misplaced_tensors_are_named_at_once():
    data = gguf(tensors=[tensor(f"t{index}", (8,), offset=8 + 4096 * index) for index in range(30)])
    with pytest.raises(ModelFileError) as caught:
        parse(data)
    assert "'t0' starts at byte" in str(caught.value)
    assert "'t3' starts at byte" in str(caught.value)
    assert "and 27 more" in str(caught.value)


@pytest.mark.parametrize("case", [case for case in MALFORMED if "2^" in case or "past" in case])
def test_a_false_size_allocates_nothing(case):
    data = MALFORMED[case][0]()
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            parse(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["directory", "missing", "device"])
def test_a_path_that_is_not_a_file_is_an_error(kind, tmp_path):
    path = {"directory": tmp_path, "missing": tmp_path / "none.gguf", "device": "/dev/null"}[kind]
    with pytest.raises(ModelFileError):
        GGUFFile.open(path)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_changed_bytes_raise_model_file_error_only(data):
    raw = bytearray(small())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=6)):
        raw[at] = data.draw(st.integers(0, 255))
    read_all(bytes(raw))


def test_spliced_bytes_raise_model_file_error_only():
    rng = random.Random(3)
    for _ in range(2000):
        raw = bytearray(small())
        start, stop = sorted(rng.sample(range(len(raw)), 2))
        at = rng.randrange(len(raw))
        raw[at : at + rng.randrange(64)] = raw[start:stop] * rng.randrange(3)
        read_all(bytes(raw))


def read_all(raw: bytes) -> None:
    """Parse ``raw``; any other exception than ModelFileError fails the test."""
    with contextlib.suppress(ModelFileError):
        parse(raw)
