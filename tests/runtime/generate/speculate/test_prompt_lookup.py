"""Drafts from the text so far."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.runtime.generate.speculate.prompt_lookup import History, PromptLookup


def lookup(text):
    return PromptLookup(text.encode())


@pytest.mark.parametrize(
    ("text", "strength", "draft"),
    [
        ('{"light": "on"}, {"light": "', 8, 'on"}'),
        ("abcXYZ abc", 3, "XYZ "),
        ("ab1 cab2 cab", 4, "2 ca"),  # three tokens before two, the last occurrence first
        ("ab1 ab", 2, "1 ab"),
        ("xyxyxy", 4, "xyxy"),  # a repetition goes on
        ("aaaa", 3, "aaaa"),
    ],
)
def test_what_followed_the_last_tokens_is_the_draft(text, strength, draft):
    drafter = lookup(text)
    kind = drafter.kind()
    assert (kind.source, kind.strength) == ("lookup", strength)
    assert bytes(drafter.propose(len(draft))).decode() == draft


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "aab", "a b c"])
def test_there_is_no_draft_for_what_is_new(text):
    assert lookup(text).kind() is None


def test_the_longer_match_is_taken_and_the_history_is_bounded():
    history = History()
    history.add(b'{"device": "light"}')
    drafter = PromptLookup(b'{"sensor": {"device": ', history)
    assert drafter.kind() == ("lookup", 8, "earlier answers")
    assert bytes(drafter.propose(7)) == b'"light"'
    assert PromptLookup(b'{"device": "fan"} {"device": ', history).kind() == ("lookup", 8, "text")
    for _ in range(9):
        history.add(range(1000))
    assert 1000 <= len(history.index.tokens) <= 4096


def test_what_is_prescribed_comes_first_and_the_search_goes_on_behind_it():
    drafter = PromptLookup(b'"room": "hall", "fan": "off"; ', forced=lambda: b'"room"')
    assert drafter.kind() == ("forced", 6, "text")
    assert bytes(drafter.propose(4)) == b'"roo'
    assert bytes(drafter.propose(12)) == b'"room": "hal'
    assert bytes(PromptLookup(b"", forced=lambda: b"xyz").propose(9)) == b""  # kind() comes first
    alone = PromptLookup(b"", forced=lambda: b"xyz")
    assert alone.kind() == ("forced", 3, "text")
    assert bytes(alone.propose(9)) == b"xyz"


@given(st.text("ab", min_size=1, max_size=60))
def test_the_index_finds_what_a_search_finds(text):
    drafter = lookup(text[:1])
    for character in text[1:].encode():
        drafter.feed(character)
    kind = drafter.kind()
    expected = next((n for n in (3, 2) if len(text) > n and text[-n:] in text[:-1]), None)
    assert (kind is not None) == (expected is not None)
    if kind is not None:
        _, at = drafter._draft
        assert text[at - kind.strength : at] == text[-kind.strength :]
        assert text[:-1].rindex(text[-expected:]) + expected == at
