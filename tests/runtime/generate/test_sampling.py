import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.errors import BackendError, InputError
from sprat.runtime.generate.sampling import Sampler, SamplingParams

EVERYTHING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "seed": 0}


def sampler(**changes):
    return Sampler(SamplingParams(**EVERYTHING | changes))


def plain_distribution(logits, history, *, temperature, top_k, top_p, min_p, repeat_penalty, **_):
    """The sampler chain step by step over (logit, id) pairs: the definition."""
    logits = list(map(float, logits))
    for token in set(history[-64:]):
        logits[token] = logits[token] * repeat_penalty if logits[token] <= 0 else logits[token] / repeat_penalty
    pairs = sorted(((logit, -token) for token, logit in enumerate(logits)), reverse=True)
    if temperature == 0:
        return {-pairs[0][1]: 1.0}
    pairs = pairs[: top_k or len(pairs)]
    kept, mass, total = [], 0.0, math.fsum(math.exp(logit - pairs[0][0]) for logit, _ in pairs)
    for logit, token in pairs:
        if top_p < 1 and mass >= top_p:
            break
        kept.append((logit, token))
        mass += math.exp(logit - pairs[0][0]) / total
    kept = [pair for pair in kept if math.exp(pair[0] - pairs[0][0]) >= min_p]
    weights = {-token: math.exp((logit - pairs[0][0]) / temperature) for logit, token in kept}
    return {token: weight / math.fsum(weights.values()) for token, weight in weights.items()}


@given(
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.integers(0, 60),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    repeat_penalty=st.sampled_from([1.0, 1.3, 0.8]),
)
def test_the_distribution_equals_that_of_the_plain_chain(seed, **params):
    random = np.random.default_rng(seed)
    logits = random.normal(scale=3, size=50).astype(np.float32)
    history = random.integers(0, 50, size=80).tolist()
    ids, probabilities = sampler(**params).distribution(logits, history)
    expected = plain_distribution(logits, history, **EVERYTHING | params)
    assert dict(zip(ids.tolist(), probabilities.tolist(), strict=True)) == pytest.approx(expected, rel=1e-9)
    assert list(probabilities) == sorted(probabilities, reverse=True)


@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 4000),
    top_k=st.integers(1, 60),
    distinct=st.sampled_from([2, 30, 10**6]),
    single=st.booleans(),
)
def test_top_k_equals_a_full_sort(seed, size, top_k, distinct, single):
    logits = np.random.default_rng(seed).integers(0, distinct, size).astype(np.float32 if single else np.float64)
    ids, _ = sampler(top_k=top_k).distribution(logits)
    np.testing.assert_array_equal(ids, np.argsort(-logits, kind="stable")[:top_k])


def test_token_frequencies_match_their_probabilities():
    logits = np.log([0.5, 0.25, 0.125, 0.0625, 0.0625])
    seeded = sampler(seed=7)
    counts = np.bincount([seeded.sample(logits)[0] for _ in range(8_000)], minlength=5)
    expected = 8_000 * np.exp(logits)
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 13.3  # the 99th percentile with 4 degrees of freedom; the seed is fixed


def test_temperature_sharpens_and_flattens():
    logits = np.log([0.6, 0.4])
    cold, hot = (sampler(temperature=t).distribution(logits)[1] for t in (0.5, 2.0))
    assert cold == pytest.approx([0.36 / 0.52, 0.16 / 0.52])
    assert hot == pytest.approx(np.sqrt([0.6, 0.4]) / np.sqrt([0.6, 0.4]).sum())


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 99}, [0, 1, 2, 3]),
        ({"top_p": 0.5}, [0]),  # the first token alone reaches it
        ({"top_p": 0.51}, [0, 1]),
        ({"top_p": 0.001}, [0]),
        ({"min_p": 0.4}, [0, 1]),  # 0.4 of the largest, which is 0.5
        ({"min_p": 1.0}, [0]),
        ({"top_k": 3, "top_p": 0.6}, [0, 1]),  # top-p applies to the renormalized candidates of top-k: 0.5 / 0.9 < 0.6
        ({"temperature": 9.0, "top_p": 0.5}, [0]),  # temperature is applied last
    ],
)
def test_truncation_keeps_these_candidates(changes, kept):
    assert sampler(**changes).distribution(np.log([0.5, 0.3, 0.1, 0.1]))[0].tolist() == kept


def test_the_penalty_divides_positive_and_multiplies_negative_logits_of_the_last_64_tokens():
    logits = np.array([2.0, -1.0, 0.5, 1.9])
    greedy = sampler(temperature=0, repeat_penalty=2.0)
    assert greedy.sample(logits, [])[0] == 0
    assert greedy.sample(logits, [0])[0] == 3
    assert greedy.sample(logits, [0, *[1] * 64])[0] == 0
    ids, probabilities = sampler(repeat_penalty=2.0).distribution(logits, [1, 0, 0])
    assert dict(zip(ids.tolist(), np.log(probabilities), strict=True))[1] - np.log(probabilities)[ids == 0] == -3.0
    assert logits.tolist() == [2.0, -1.0, 0.5, 1.9]


def test_the_log_probability_is_that_of_the_unmodified_logits():
    logits = np.log([0.5, 0.25, 0.25])
    token, logprob = sampler(temperature=0, repeat_penalty=5.0).sample(logits + 100, [1])
    assert (token, logprob) == (0, pytest.approx(math.log(0.5)))


def test_the_same_seed_gives_the_same_tokens():
    logits = np.zeros(1000)
    runs = [
        [seeded.sample(logits)[0] for _ in range(20)] for seeded in (sampler(seed=1), sampler(seed=1), sampler(seed=2))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) > 10


def test_equal_logits_are_ordered_by_id():
    assert sampler(temperature=0).sample(np.zeros(9))[0] == 0
    assert sampler(top_k=3).distribution(np.array([1.0, 2.0, 2.0, 2.0, 0.0]))[0].tolist() == [1, 2, 3]


def test_masked_tokens_are_never_sampled():
    logits = np.full(100, -np.inf, np.float32)
    logits[[3, 50]] = 0
    assert {sampler(seed=seed, top_p=0.9).sample(logits)[0] for seed in range(40)} == {3, 50}


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [-math.inf, -math.inf], [math.inf, 0.0]])
def test_logits_without_a_finite_maximum_are_an_error(bad):
    with pytest.raises(BackendError, match="weights are damaged"):
        sampler().sample(bad)


def test_all_parameters_out_of_range_are_named_at_once():
    with pytest.raises(
        InputError, match=r"temperature is -1.*top_k is 1\.5.*top_p is 0.*min_p is 2.*repeat_penalty is 0.*seed is -3"
    ):
        SamplingParams(temperature=-1, top_k=1.5, top_p=0, min_p=2, repeat_penalty=0, seed=-3)
    for bad in (math.nan, math.inf, "hot", None, True):
        with pytest.raises(InputError, match=f"temperature is {bad!r}"):
            SamplingParams(temperature=bad)


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("temperature", [0, 1e-30, 1e30])
@pytest.mark.parametrize("penalty", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("summand", [-1e30, 0.0, 1e30])
@pytest.mark.parametrize("logits", [[1.0, 2.0, 0.5], [LARGEST, -LARGEST, 1e-40], [-math.inf, LARGEST, 0.0]])
def test_the_limits_of_parameters_overflow_nothing(temperature, penalty, summand, logits):
    chosen = sampler(
        temperature=temperature,
        repeat_penalty=penalty,
        presence_penalty=summand,
        frequency_penalty=summand,
        logit_bias={0: summand, 2: -summand},
        top_n_sigma=1e30,
        typical_p=0.9,
    )
    _, probabilities = chosen.distribution(np.array(logits, np.float32), [0] * 63 + [1])
    assert probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize("value", [1e-31, 1e31, 5e-324, -1e31])
def test_values_beyond_the_limits_are_refused(value):
    with pytest.raises(InputError, match=r"repeat_penalty is .*, expected between 1e-30 and 1e\+30"):
        SamplingParams(repeat_penalty=value)
    if abs(value) > 1:
        with pytest.raises(InputError, match="presence_penalty is"):
            SamplingParams(presence_penalty=value)


def test_without_a_seed_two_samplers_differ():
    logits = np.zeros(100_000)
    draws = [Sampler(SamplingParams(top_k=0, top_p=1.0, min_p=0.0)).sample(logits)[0] for _ in range(3)]
    assert len(set(draws)) > 1
