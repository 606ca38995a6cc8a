import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.added_tokens import AddedToken
from sprat.runtime.tokenizer.special_tokens import SpecialTokens

TEXTS = st.lists(st.text("<|a>", min_size=1, max_size=4), max_size=5, unique=True)


@given(special=TEXTS, text=st.text("<|a>b", max_size=30))
def test_parts_equal_those_of_a_regular_expression_with_the_longest_token_first(special, text):
    ids = {token: index for index, token in enumerate(special)}
    expected = [text]
    if special:
        pattern = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
        expected = [ids.get(part, part) if odd % 2 else part for odd, part in enumerate(re.split(f"({pattern})", text))]
    assert SpecialTokens(ids).split(text) == [part for part in expected if part != ""]


@pytest.mark.parametrize("first", ["[", "]", "^", "\\", "-", "｜"])
def test_any_character_may_begin_a_special_token(first):
    assert SpecialTokens({f"{first}x": 5, "<y>": 6}).split(f"a{first}xb<y>") == ["a", 5, "b", 6]


def test_a_visible_token_that_holds_a_special_one_stays_text():
    visible = AddedToken(id=7, text="<y>b", special=False)
    assert SpecialTokens({"<y>": 6}, [visible]).split("<y>b<y>a<y>b") == ["<y>b", 6, "a<y>b"]


def test_tokens_that_almost_match_everywhere_take_little_time():
    tokens = SpecialTokens({f"<{'a' * n}b": n for n in range(300)})
    started = time.thread_time()
    assert tokens.split("<a" * 100_000) == ["<a" * 100_000]
    assert tokens.split(("<" + "a" * 299) * 1000 + "b")[-1] == 299
    assert time.thread_time() - started < 10


def test_special_tokens_of_any_length_are_refused_before_they_take_memory():
    with pytest.raises(TokenizerError, match="special tokens have up to 1024 characters"):
        SpecialTokens({f"<{n:022}{'a' * 1000}>": n for n in range(1000)})
