from itertools import islice

import pytest

from sprat.demo.tasks import GENERATED, Problem, Split, generated
from sprat.demo.tasks.split import HELD_OUT_SHARE, split_of
from sprat.errors import InputError


@pytest.mark.parametrize("task", GENERATED)
@pytest.mark.parametrize("split", Split)
def test_the_same_seed_gives_the_same_problems_and_another_seed_others(task, split):
    first, again, other = (list(islice(generated(task).problems(split, seed=seed), 20)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("task", GENERATED)
def test_no_held_out_problem_has_the_content_of_a_training_problem(task):
    def content(problem: Problem) -> tuple[str, str]:
        # Without the wording: the computed numbers, or the command.
        return problem.reasoning, problem.answer

    training = {content(problem) for problem in islice(generated(task).problems(Split.TRAIN), 4_000)}
    held_out = {content(problem) for problem in islice(generated(task).problems(Split.HELD_OUT), 600)}
    assert not training & held_out


@pytest.mark.parametrize("task", GENERATED)
def test_the_answer_of_every_problem_is_correct(task):
    for split in Split:
        for problem in islice(generated(task).problems(split), 100):
            assert generated(task).is_correct(problem, f" {problem.answer}\n")
            assert not generated(task).is_correct(problem, problem.answer + "0")


def test_held_out_share_is_near_its_nominal_value():
    held_out = sum(split_of(str(n)) is Split.HELD_OUT for n in range(10_000)) / 10_000
    assert held_out == pytest.approx(HELD_OUT_SHARE, abs=0.01)


def test_unknown_task_is_named_with_the_known_ones():
    with pytest.raises(InputError, match="unknown task 'home2'; did you mean 'home'"):
        generated("home2")
