import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_model import byte_tokenizer

from sprat.runtime.generate.stop import StopScanner
from sprat.runtime.tokenizer.stream_decoder import StreamDecoder

TOKENS = byte_tokenizer()  # ids 0 to 255 are bytes


@given(st.binary(max_size=40))
def test_streamed_bytes_decode_like_all_at_once_even_if_invalid(data):
    decoder = TOKENS.stream_decoder()
    pieces = [*map(decoder.feed, data), decoder.flush()]
    assert "".join(pieces) == TOKENS.decode(data) == data.decode("utf-8", errors="replace")


@given(st.text("aé日👍\n", max_size=20), st.data())
def test_streamed_tokens_of_any_length_decode_like_all_at_once(text, cuts):
    data = text.encode()
    at = sorted(cuts.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    tokens = [data[i:j] for i, j in zip([0, *at], [*at, len(data)], strict=True)]
    decoder = StreamDecoder(tokens.__getitem__)
    assert "".join([*map(decoder.feed, range(len(tokens))), decoder.flush()]) == text


def test_no_piece_ends_inside_a_character():
    decoder = TOKENS.stream_decoder()
    assert [decoder.feed(byte) for byte in "é👍!".encode()] == ["", "é", "", "", "", "👍", "!"]
    assert decoder.flush() == ""


def test_an_incomplete_character_becomes_a_replacement_character():
    decoder = TOKENS.stream_decoder()
    assert [decoder.feed(byte) for byte in "👍".encode()[:3]] == ["", "", ""]
    assert decoder.flush() == "\ufffd"


def test_control_tokens_have_no_text():
    decoder = TOKENS.stream_decoder()
    assert [decoder.feed(token) for token in (ord("a"), 258, ord("b"), 257)] == ["a", "", "b", ""]


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.data(),
)
def test_a_stop_string_is_found_wherever_the_text_is_cut(text, stops, cuts):
    at = sorted(cuts.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    scanner = StopScanner(stops)
    pieces = [scanner.feed(text[i:j]) for i, j in zip([0, *at], [*at, len(text)], strict=True)]
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    first = min(
        (text.find(stop) for stop in stops if stop in text and text.find(stop) + len(stop) == min(ends)), default=None
    )
    assert (scanner.matched is not None) == bool(ends)
    assert "".join([*pieces, scanner.flush()]) == text[:first]


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        (["</s>"], ["a</", "s", ">b"], ["a", "", ""]),
        (["</s>"], ["a</", "x>b"], ["a", "</x>b"]),
        (["aab"], ["aa", "ab"], ["", "a"]),
        ([], ["a", "b"], ["a", "b"]),
        ([""], ["a"], ["a"]),
        (["b", "abc"], ["ab"], ["a"]),
    ],
)
def test_only_a_prefix_of_a_stop_string_is_held_back(stops, pieces, expected):
    scanner = StopScanner(stops)
    assert [scanner.feed(piece) for piece in pieces] == expected


@pytest.mark.parametrize(
    ("stops", "pieces", "expected", "matched"),
    [
        (["<u>"], [("a", ""), ("", "<u>"), ("b", "")], "a", "<u>"),
        (["\n<u>"], [("a\n", ""), ("", "<u>")], "a", "\n<u>"),
        (["<u>b"], [("a", ""), ("", "<u>"), ("b", "")], "a", "<u>b"),
        (["ab"], [("a", ""), ("", "<u>"), ("b", "")], "ab", None),
        (["ab"], [("a", ""), ("", "<u>"), ("ab", "")], "a", "ab"),
        (["<u"], [("a", ""), ("", "<u>")], "a", "<u"),
        (["u><v"], [("a", ""), ("", "<u>"), ("", "<v>"), ("b", "")], "a", "u><v"),
        (["<u><w>"], [("a", ""), ("", "<u>"), ("b", "<v>"), ("c", "")], "abc", None),
        ([], [("a", ""), ("", "<u>"), ("b", "")], "ab", None),
        (["<u>"], [("a<", ""), ("u>b", "")], "a", "<u>"),
    ],
)
def test_stop_strings_match_special_tokens_and_never_across_one(stops, pieces, expected, matched):
    scanner = StopScanner(stops)
    released = [scanner.feed(text, special) for text, special in pieces]
    assert "".join([*released, scanner.flush()]) == expected
    assert scanner.matched == matched


@given(pieces=st.lists(st.tuples(st.text("ab<", max_size=3), st.sampled_from(["", "<a>", "<b>"]))), stops=st.data())
def test_special_tokens_are_searched_and_never_released(pieces, stops):
    """The oracle: the visible part of the full text up to the first match."""
    full = "".join(text + special for text, special in pieces)
    hidden = []
    for text, special in pieces:
        hidden += [False] * len(text) + [True] * len(special)
    stop = stops.draw(st.text("ab<>", min_size=1, max_size=4))
    scanner = StopScanner([stop])
    released = "".join([scanner.feed(text, special) for text, special in pieces]) + scanner.flush()
    end = full.find(stop) if stop in full else len(full)
    assert released == "".join(char for char, is_hidden in zip(full[:end], hidden, strict=False) if not is_hidden)
