"""Which of the teacher's answers the student learns from."""

from dataclasses import replace

import pytest

from sprat.demo.tasks import Problem, Split, prose

GOOD = "A lamp gives light in the evening. It stands on a table or hangs on a wall."


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (GOOD, GOOD),
        (f"{GOOD} It is very", GOOD),
        (f"{GOOD} A lamp gives light in the morning.", GOOD),
        (f"{GOOD} It is a big lamp and a big lamp.", GOOD),
        (GOOD.replace("It stands", "It\n\nstands"), GOOD),
    ],
    ids=["whole", "cut sentence", "repeats a sequence of words", "repeats words in a sentence", "line breaks"],
)
def test_an_answer_is_cut_to_its_whole_sentences(answer, kept):
    from plain_style import clean

    assert clean(answer) == kept


@pytest.mark.parametrize(
    "answer",
    [
        "A lamp.",
        "As an AI, " + GOOD,
        GOOD + " Ça va bien.",
        "1. " + GOOD,
        "A lamp " + "that is old and " * 8 + "gives light. " + GOOD,
    ],
    ids=["short", "about itself", "other letters", "a list", "long sentence"],
)
def test_an_answer_that_is_not_plain_is_dropped(answer):
    from plain_style import clean

    assert clean(answer) is None


def test_a_text_ends_before_its_first_rare_word():
    from plain_style import COMMON, in_common_words

    plain = Problem(prompt="?", answer=GOOD, kind="prose")
    rare = [replace(plain, answer=f"{GOOD} It holds antimony."), replace(plain, answer="A lamp gives antimony.")]
    assert in_common_words([plain] * COMMON + rare) == [plain] * (COMMON + 1)


def test_few_shot_examples_are_plain_and_not_among_the_questions():
    from plain_style import FEW_SHOT, clean

    questions = {problem.prompt for split in (Split.TRAIN, Split.HELD_OUT) for problem in prose.problems(split)}
    for question, answer in FEW_SHOT:
        assert clean(answer) == answer
        assert question not in questions
