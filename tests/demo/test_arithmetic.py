import itertools
import re
from itertools import islice

import pytest

from sprat.demo.tasks import Split
from sprat.demo.tasks.arithmetic import (
    add_steps,
    compare_steps,
    problems,
    select_steps,
    subtract_steps,
    yes_no_steps,
)

_EQUATION = re.compile(r"[\d+-]+=\d+")


def test_addition_carries_from_right_to_left():
    assert add_steps(347, 285) == ["347+285", "7+5+0=12", "4+8+1=13", "3+2+1=06", "632"]


def test_addition_may_reach_four_digits():
    assert add_steps(999, 999)[-2:] == ["9+9+1=19", "1998"]


def test_subtraction_borrows_by_adding_ten():
    assert subtract_steps(532, 347) == ["532-347", "2-7-0+10=5", "3-4-1+10=8", "5-3-1=1", "185"]


@pytest.mark.parametrize(("a", "b", "last"), [(5, 40, "A<B"), (40, 5, "A>B"), (7, 7, "A=B")])
def test_a_comparison_ends_with_the_relation(a, b, last):
    assert compare_steps(a, b)[-1] == last


def test_a_selection_begins_with_its_goal_and_ends_with_the_answer_of_the_letter():
    steps = select_steps("min", 87, 92, ("87", "92"))
    assert steps == ["min", "A=87", "B=92", "087?092", "0=0", "8<9", "A<B", "min=A", "A=87", "87"]


@pytest.mark.parametrize(("goal", "a", "b"), [*itertools.product(("less", "greater"), (3, 40, 41), (3, 40, 41))])
def test_a_yes_no_question_ends_with_the_right_answer(goal, a, b):
    assert yes_no_steps(goal, a, b)[-1] == ("yes" if (a < b if goal == "less" else a > b) else "no")


@pytest.mark.parametrize("split", Split)
def test_the_answer_of_every_comparison_is_the_larger_or_smaller_one(split):
    comparisons = (problem for problem in problems(split) if problem.reasoning.startswith(("min", "max")))
    for problem in islice(comparisons, 100):
        a, b = (int(number) for number in re.findall(r"\d+", problem.prompt))
        named = dict(re.findall(r"^([AB])(?:=| is )(\w+)$", problem.reasoning, re.MULTILINE))
        goal = max if problem.reasoning.startswith("max") else min
        assert problem.answer == named["AB"[goal(a, b) == b]]


@pytest.mark.parametrize("split", Split)
def test_every_line_of_reasoning_is_a_true_equation_and_the_last_is_the_answer(split):
    for problem in islice(problems(split), 200):
        lines = problem.reasoning.split("\n")
        assert lines[-1] == problem.answer
        for line in filter(_EQUATION.fullmatch, lines):
            left, right = line.split("=")
            assert sum(int(term) for term in re.findall(r"[+-]?\d+", left)) == int(right), line


def test_numbers_in_prompts_stay_within_999():
    for problem in islice(problems(Split.TRAIN), 500):
        assert all(int(number) <= 999 for number in re.findall(r"\d+", problem.prompt)), problem.prompt


def test_training_has_more_short_numbers_than_evaluation():
    def share(split):
        drawn = [problem.prompt for problem in islice(problems(split), 600)]
        return sum(bool(re.search(r"\b\d{1,2}\b", prompt)) for prompt in drawn) / len(drawn)

    assert share(Split.TRAIN) > share(Split.HELD_OUT) + 0.1
