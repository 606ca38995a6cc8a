import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.runtime.chat.reasoning import ReasoningParts, ReasoningSplitter

OPENED = "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜><think>\n"

CASES = [
    ("reasoning and answer", "", "<think>\nHm.\n</think>\n\nParis.", "Hm.", "Paris."),
    ("white space before the tag", "", "\n <think>Hm.</think>Paris.", "Hm.", "Paris."),
    ("opened by the template", OPENED, "Hm.\n</think>\n\nParis.", "Hm.", "Paris."),
    ("opened without a newline", "<｜Assistant｜><think>", "\nHm.</think>Paris.", "Hm.", "Paris."),
    ("empty reasoning", "", "<think>\n\n</think>\n\nParis.", "", "Paris."),
    ("ends inside the reasoning", OPENED, "First, I", "First, I", ""),
    ("ends inside reasoning that the model opened", "", "<think>\nFirst, I \n", "First, I", ""),
    ("ends inside the closing tag", OPENED, "Hm.\n</thi", "Hm.\n</thi", ""),
    ("ends inside the opening tag", "", " <thi", "", " <thi"),
    ("ends right after the reasoning", "", "<think>Hm.</think>\n", "Hm.", ""),
    ("no reasoning", "", " Paris.\n", "", " Paris.\n"),
    ("only white space", "", " \n", "", " \n"),
    ("a tag in the middle of an answer is text", "", "Write <think>x</think> so.", "", "Write <think>x</think> so."),
    ("a second pair of tags is text", "", "<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    ("other tags and white space inside the reasoning", OPENED, "a <b>\n\n c</b> </think> d ", "a <b>\n\n c</b>", "d "),
    ("empty answer", OPENED, "", "", ""),
]


def split(prompt: str, pieces: list[str]) -> ReasoningParts:
    splitter = ReasoningSplitter(prompt)
    parts = [*map(splitter.feed, pieces), splitter.flush()]
    return ReasoningParts("".join(p.reasoning for p in parts), "".join(p.content for p in parts))


@pytest.mark.parametrize(
    ("prompt", "answer", "reasoning", "content"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_an_answer_fed_at_once_and_by_characters_splits_the_same(prompt, answer, reasoning, content):
    assert split(prompt, [answer]) == (reasoning, content)
    assert split(prompt, list(answer)) == (reasoning, content)


@given(
    pieces=st.lists(st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "\n", " ", "a", "é"]), max_size=12),
    cuts=st.data(),
    opened=st.booleans(),
)
def test_the_result_does_not_depend_on_the_pieces(pieces, cuts, opened):
    answer = "".join(pieces)
    at = sorted(cuts.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    cut = [answer[i:j] for i, j in zip([0, *at], [*at, len(answer)], strict=True)]
    prompt = OPENED if opened else ""
    assert split(prompt, cut) == split(prompt, [answer])


def test_only_white_space_and_possible_tags_are_held_back():
    splitter = ReasoningSplitter(OPENED)
    assert splitter.feed("One two") == ("One two", "")
    assert splitter.feed("</think>\nx") == ("", "x")
    assert splitter.feed(" </thi") == ("", " </thi")
