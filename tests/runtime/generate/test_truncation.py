"""Typical sampling as in transformers, and the edges of the other truncations."""

import math

import numpy as np
import pytest

from sprat.errors import InputError
from sprat.runtime.generate.sampling import Sampler, SamplingParams, log_probability, top_logprobs

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def candidates(logits, history=(), allowed=None, **changes):
    return Sampler(SamplingParams(**OFF | changes)).distribution(np.array(logits), history, allowed)[0].tolist()


@pytest.mark.parametrize("mass", [0.1, 0.3, 0.5, 0.9, 0.99])
def test_typical_keeps_what_transformers_keeps(mass):
    processors = pytest.importorskip("transformers.generation.logits_process")
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(1)
    for _ in range(50):
        logits = random.normal(scale=2, size=60)
        kept = processors.TypicalLogitsWarper(mass)(None, torch.tensor(logits)[None])[0]
        assert sorted(candidates(logits, typical_p=mass)) == torch.isfinite(kept).nonzero().ravel().tolist()


def test_top_n_sigma_counts_only_what_is_not_masked():
    logits = [3.0, 2.0, 1.0, -math.inf]
    assert candidates(logits, top_n_sigma=1.0) == [0]  # the deviation is 0.816
    assert candidates(logits, top_n_sigma=1.3) == [0, 1]


def test_xtc_leaves_the_last_of_the_top_choices():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert candidates(logits, xtc_probability=1.0, xtc_threshold=0.1) == [2, 3]
    assert candidates(logits, xtc_probability=1.0, xtc_threshold=0.4) == [0, 1, 2, 3]
    assert candidates(logits, xtc_probability=1.0, xtc_threshold=0.6) == [0, 1, 2, 3]


def test_xtc_happens_as_often_as_its_probability_says():
    logits = np.log([0.6, 0.3, 0.1])
    sampler = Sampler(SamplingParams(**OFF, xtc_probability=0.25, xtc_threshold=0.2, seed=5))
    without_first = sum(0 not in sampler.distribution(logits)[0] for _ in range(2000))
    assert 430 < without_first < 570


def test_only_allowed_tokens_are_sampled_and_penalties_apply_to_them():
    logits = [9.0, 1.0, 0.0, 8.0]
    assert candidates(logits, allowed=np.array([1, 2])) == [1, 2]
    assert candidates(logits, [1], np.array([1, 2]), presence_penalty=2.0) == [2, 1]
    assert candidates(logits, [1, 1, 1], np.array([1, 2]), frequency_penalty=0.4) == [2, 1]
    assert candidates(logits, allowed=np.array([1, 2]), temperature=0.0, logit_bias={2: 3}) == [2]


def test_openai_s_keys_of_a_bias_are_text():
    assert SamplingParams(logit_bias={"3": -100}).logit_bias == {3: -100.0}


def test_log_probabilities_are_those_of_the_unmodified_logits():
    logits = np.log([0.5, 0.3, 0.2]) + 7
    assert log_probability(logits, 1) == pytest.approx(math.log(0.3))
    assert [token for token, _ in top_logprobs(logits, 2)] == [0, 1]
    assert [value for _, value in top_logprobs(logits, 2)] == pytest.approx(np.log([0.5, 0.3]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"typical_p": 0},
        {"top_n_sigma": -1},
        {"xtc_probability": 1.5},
        {"xtc_threshold": "x"},
        {"presence_penalty": math.nan},
        {"frequency_penalty": None},
        {"logit_bias": {"x": 1}},
        {"logit_bias": [1]},
        {"logit_bias": {3: math.inf}},
    ],
)
def test_a_value_out_of_its_range_is_named(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*expected"):
        SamplingParams(**wrong)
