from sprat.demo.tasks import Split
from sprat.demo.tasks.prose import TOPICS, problems


def test_no_question_is_in_both_splits():
    training = [problem.prompt for problem in problems(Split.TRAIN)]
    held_out = [problem.prompt for problem in problems(Split.HELD_OUT)]
    assert len(set(training)) == len(training)
    assert not set(training) & set(held_out)
    assert len(held_out) > 100


def test_topics_are_unique():
    assert len(set(TOPICS)) == len(TOPICS)
