import re
from itertools import islice

import pytest

from sprat.demo.tasks import Split
from sprat.demo.tasks.arithmetic import add_steps, compare_steps, problems, subtract_steps

_EQUATION = re.compile(r"[\d+-]+=\d+")


def test_addition_carries_from_right_to_left():
    assert add_steps(347, 285) == ["347+285", "7+5+0=12", "4+8+1=13", "3+2+1=06", "632"]


def test_addition_may_reach_four_digits():
    assert add_steps(999, 999)[-2:] == ["9+9+1=19", "1998"]


def test_subtraction_borrows_by_adding_ten():
    assert subtract_steps(532, 347) == ["532-347", "2-7-0+10=5", "3-4-1+10=8", "5-3-1=1", "185"]


@pytest.mark.parametrize(("a", "b", "last"), [(5, 40, "5<40"), (40, 5, "40>5"), (7, 7, "7=7")])
def test_comparison_ends_in_the_relation(a, b, last):
    assert compare_steps(a, b)[-1] == last


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
