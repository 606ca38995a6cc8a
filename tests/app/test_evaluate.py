import pytest
from scripted_model import saying, scripted_engine

from sprat.app.evaluate import evaluate, wilson_interval
from sprat.errors import InputError


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Values of Wilson's formula as printed in Newcombe (1998), table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_agrees_with_published_values(right, n, low, high):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_all_right_ends_at_one():
    low, high = wilson_interval(1000, 1000)
    assert high == 1.0
    assert low > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "maths"}, "unknown task 'maths'"),
        ({"task": "home", "split": "train"}, "unknown split 'train'"),
        ({"task": "home", "n": 0}, "n is 0, expected at least 1"),
        (
            {"task": "home", "texts": [("q", "a")]},
            "expected at least one, and the task prose; found 1, and the task home",
        ),
        ({"task": "prose", "texts": []}, "found 0, and the task prose"),
    ],
)
def test_wrong_options_are_refused_before_the_model_runs(options, message):
    with pytest.raises(InputError, match=message):
        evaluate(scripted_engine(saying("")), **options)
