"""String arrays of a GGUF are read a window at a time, as they are."""

from struct import pack

import pytest
from gguf_bytes import ARRAY, STRING, gguf, key, text
from hypothesis import given
from hypothesis import strategies as st

from sprat.errors import ModelFileError
from sprat.runtime.files.gguf_header import read_header
from sprat.runtime.files.gguf_strings import short_strings


def file_with(strings, n_strings=None):
    """A GGUF whose only key is an array, and which ends with it."""
    count = len(strings) if n_strings is None else n_strings
    return gguf([key("a.texts", ARRAY, pack("<IQ", STRING, count) + b"".join(map(text, strings)))], alignment=1)


def read(strings):
    return read_header(memoryview(file_with(strings)), "model.gguf").metadata["a.texts"]


@given(st.lists(st.text(max_size=40) | st.sampled_from(["", "\0", "\0" * 20, "a" * 300, "é" * 200]), max_size=60))
def test_strings_of_any_kind_are_read(strings):
    assert read(strings) == strings


@pytest.mark.parametrize("odd", ["", "a\0b", "x" * 255, "x" * 256, "x" * 400_000])
def test_a_string_that_is_not_short_text_stops_no_other(odd):
    strings = [f"token {index} é 中 😀" for index in range(30_000)]
    for at in (0, 1, 15_000, 29_999):
        changed = [*strings[:at], odd, *strings[at:]]
        assert read(changed) == changed


def test_a_window_gives_its_short_strings_and_where_the_next_one_is():
    data = memoryview(b"".join(map(text, ["ab", "é", "", "c"])))
    assert short_strings(data, 0, 4) == (["ab", "é"], 20)
    assert short_strings(data, 0, 1) == (["ab"], 10)


@pytest.mark.parametrize("cut", [1, 5, 12, 100, 5000])
def test_an_array_that_the_file_cuts_short_is_an_error(cut):
    data = file_with([f"token {index}" for index in range(5000)])
    with pytest.raises(ModelFileError, match=r"to the end of the file|elements of 'a\.texts'"):
        read_header(memoryview(data[:-cut]), "model.gguf")


def test_bytes_that_are_not_utf8_are_named_with_their_place():
    strings = [b"token %d" % index for index in range(1000)]
    data = file_with([*strings, b"\xff\xfe", *strings])
    with pytest.raises(ModelFileError, match=r"string 1000 of 'a\.texts' that are not UTF-8"):
        read_header(memoryview(data), "model.gguf")
