"""Text methods give what ``str`` gives, and keep track of which characters come from the input.

In these tests, input is upper-case letters and the template's text is everything else, so that each character of a
result shows where it should be from.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.runtime.chat.budget import Budget, rendering
from sprat.runtime.chat.text_format import format_percent
from sprat.runtime.chat.text_methods import TEXT_METHODS, join, maketrans, repeat
from sprat.runtime.chat.tracked_text import TrackedStr, as_input, concat, is_tracked, mask_of, tracked

TEXTS = st.text(alphabet="ABab- \n", max_size=12)
SHORT = st.text(alphabet="ABab- ", min_size=1, max_size=2)
COUNTS = st.integers(-1, 4)


@pytest.fixture(autouse=True)
def budget():
    token = rendering.set(Budget())
    yield
    rendering.reset(token)


def mixed(text):
    """``text`` whose upper-case letters come from the input."""
    return tracked(text, bytes(char.isupper() for char in text))


def assert_tracked(result):
    """Every character of ``result`` is known to be from the right place."""
    for text in [result] if isinstance(result, str) else result:
        assert mask_of(text) == bytes(char.isupper() for char in str.__str__(text)), repr(text)


PIECES = {
    "lstrip": st.tuples(st.none() | SHORT),
    "partition": st.tuples(SHORT),
    "removeprefix": st.tuples(SHORT),
    "removesuffix": st.tuples(SHORT),
    "rpartition": st.tuples(SHORT),
    "rsplit": st.tuples(st.none() | SHORT, COUNTS),
    "rstrip": st.tuples(st.none() | SHORT),
    "split": st.tuples(st.none() | SHORT, COUNTS),
    "splitlines": st.tuples(st.booleans()),
    "strip": st.tuples(st.none() | SHORT),
    "center": st.tuples(st.integers(0, 20)),
    "ljust": st.tuples(st.integers(0, 20), st.sampled_from("xX")),
    "rjust": st.tuples(st.integers(0, 20), st.sampled_from("xX")),
}
QUERIES = {
    "find": st.tuples(SHORT, COUNTS, COUNTS),
    "rfind": st.tuples(TEXTS, st.none() | st.integers(-15, 15), st.none() | st.integers(-15, 15)),
    "count": st.tuples(SHORT),
    "startswith": st.tuples(SHORT),
    "endswith": st.tuples(SHORT),
}


@pytest.mark.parametrize("name", PIECES)
@given(data=st.data(), text=TEXTS)
@settings(max_examples=80)
def test_a_part_of_a_text_keeps_its_origin(name, data, text):
    arguments = data.draw(PIECES[name])
    given_arguments = [mixed(value) if isinstance(value, str) else value for value in arguments]
    result = TEXT_METHODS[name](mixed(text), *given_arguments)
    assert result == getattr(text, name)(*arguments)
    assert_tracked(result)


@pytest.mark.parametrize("name", QUERIES)
@given(data=st.data(), text=TEXTS)
@settings(max_examples=80)
def test_a_search_finds_what_str_finds(name, data, text):
    arguments = data.draw(QUERIES[name])
    assert TEXT_METHODS[name](mixed(text), *arguments) == getattr(text, name)(*arguments)


@given(text=TEXTS, old=SHORT, new=TEXTS, count=COUNTS)
def test_replaced_text_comes_from_where_the_new_text_comes_from(text, old, new, count):
    result = TEXT_METHODS["replace"](mixed(text), old, mixed(new), count)
    assert result == text.replace(old, new, count)
    assert_tracked(result)


@given(parts=st.lists(TEXTS, max_size=4), separator=TEXTS)
def test_joined_text(parts, separator):
    result = join(mixed(separator), map(mixed, parts))
    assert result == separator.join(parts)
    assert_tracked(result)
    assert_tracked(concat(map(mixed, parts)))


@given(text=TEXTS, start=COUNTS, stop=COUNTS, step=st.sampled_from([None, 1, 2, -1]), times=st.integers(-1, 3))
def test_slices_characters_and_repetition(text, start, stop, step, times):
    value = mixed(text)
    assert value[start:stop:step] == text[start:stop:step]
    assert_tracked(value[start:stop:step])
    assert_tracked(list(value))
    assert repeat(value, times) == text * times
    assert_tracked(repeat(value, times))


@given(before=st.text("ab-", max_size=3), value=st.text("AB", max_size=5), after=st.text("ab-", max_size=3))
def test_formatted_text(before, value, after):
    result = format_percent(f"{before}%s{after}", mixed(value))
    assert result == f"{before}{value}{after}"
    assert_tracked(result)


@pytest.mark.parametrize("name", ["upper", "lower", "title", "capitalize", "swapcase", "casefold"])
def test_case_keeps_the_origin_or_counts_as_input(name):
    for text in ("abC", "ßa", "ǆ"):
        value = concat((as_input(text), text))
        result = TEXT_METHODS[name](value)
        assert result == getattr(text + text, name)()
        assert 1 in mask_of(result)[: len(getattr(text, name)())]


@pytest.mark.parametrize("args", [("ab", as_input("BB")), ({"a": as_input("B")},)])
def test_translated_text_comes_from_where_the_table_comes_from(args):
    assert mask_of(TEXT_METHODS["translate"]("ca", maketrans(*args)))[1] == 1
    assert mask_of(TEXT_METHODS["translate"]("ca", {97: "b"})) == bytes(2)


def test_tracked_text_is_text_for_the_template():
    value = as_input("a<b")
    assert isinstance(value, TrackedStr)
    assert (value, hash(value), repr(value)) == ("a<b", hash("a<b"), "'a<b'")
    assert {"a<b": 1}[value] == 1
    assert str(value) is value
    assert as_input("") == ""
    assert not is_tracked("a")
    assert is_tracked([{"k": ("x", value)}])
