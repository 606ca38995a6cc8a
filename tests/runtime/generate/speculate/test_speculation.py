"""Answers with drafts are those without: the same tokens greedily and with a seed, the same distribution otherwise."""

import numpy as np
import pytest
from native_kernels import every_isa, needs_native
from scripted_model import random_logits, saying, scripted_engine
from tiny_checkpoint import write_checkpoint
from tiny_engines import BACKENDS, KINDS, tiny_engine

from sprat.errors import InputError
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine
from sprat.runtime.generate.sampling import Sampler, SamplingParams
from sprat.runtime.generate.speculate.draft_model import DraftModel
from sprat.runtime.generate.speculate.drafter import FirstOf, Kind
from sprat.runtime.generate.speculate.pace import Pace
from sprat.runtime.generate.speculate.prompt_lookup import PromptLookup
from sprat.runtime.generate.speculate.speculator import Speculation, Speculator
from sprat.runtime.generate.transcript import Transcript

every_backend = pytest.mark.parametrize("backend", BACKENDS)
RNG = np.random.default_rng(11)
PATTERN = RNG.integers(2, 200, 12).tolist()
PROMPTS = [PATTERN * 3, RNG.integers(2, 200, 40).tolist(), [5, 6] * 8, [9] * 20, [3]]


class Guesses:
    """Drafts that are right or wrong as a script says, to reach every path."""

    def __init__(self, known, n_right):
        self._known, self._n_right, self._at = known, n_right, 0

    def feed(self, token):
        self._at += 1

    def kind(self):
        return Kind("lookup", 0)

    def prepare(self):
        pass

    def propose(self, n):
        drafts = list(self._known[self._at : self._at + n]) + [0] * n
        return [token if i < self._n_right else token ^ 1 for i, token in enumerate(drafts[:n])]

    def close(self):
        pass


def always(engine, n=4, drafter=lambda prompt, *_: PromptLookup(prompt)):
    """The engine, guessing whether it pays or not."""
    object.__setattr__(engine.frontend, "speculation", Speculation(Pace(n, always=True), drafter))
    return engine


def answer(engine, prompt, n=40, **options):
    generation = engine.generate(prompt, max_tokens=n, **{"temperature": 0, **options})
    pieces = list(generation)
    return [(piece.token_id, piece.logprob) for piece in pieces], generation.summary


def ids(pieces):
    return [token for token, _ in pieces]


@every_backend
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_without_drafts(kind, backend):
    with tiny_engine(kind, backend, speculate="off") as plain, always(tiny_engine(kind, backend)) as engine:
        n_right = 0
        for prompt in PROMPTS:
            expected, _ = answer(plain, prompt)
            found, summary = answer(engine, prompt)
            assert ids(found) == ids(expected)
            assert summary.timings.draft_n >= summary.timings.draft_n_accepted
            n_right += summary.timings.draft_n_accepted
        assert n_right > 0


@needs_native
@pytest.mark.parametrize("cache", ["f16", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_native_answers_have_every_bit_of_those_without_drafts(kind, cache):
    """With int8 activations, where the smallest difference would become another code."""
    options = {"backend": "native", "cache": cache, "prefix_cache": False}
    with tiny_engine(kind, speculate="off", **options) as plain, always(tiny_engine(kind, **options)) as engine:
        for prompt in PROMPTS:
            for sampling in ({}, {"temperature": 1.0, "seed": 3, "repeat_penalty": 1.2}):
                assert answer(engine, prompt, **sampling)[0] == answer(plain, prompt, **sampling)[0]


@needs_native
@every_isa
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_tokens_of_a_native_pass_have_the_bits_of_one_at_a_time(kind, isa, monkeypatch):
    monkeypatch.setenv("SPRAT_ISA", isa)
    with tiny_engine(kind, "native", exact=False) as engine:
        stream = engine.backend.new_stream(400)
        stream.forward(PATTERN * 25)
        one_by_one = np.array([stream.forward([token]) for token in PATTERN[:5]])
        for n in range(1, 6):
            stream.truncate(300)
            np.testing.assert_array_equal(stream.forward_all(PATTERN[:n]), one_by_one[:n])


@every_backend
@pytest.mark.parametrize("n_right", [0, 1, 3, 4])
def test_right_and_wrong_drafts_give_the_same_answer(n_right, backend):
    with tiny_engine("deepseek2", backend, speculate="off") as plain:
        expected, _ = answer(plain, PATTERN, n=30)
    with tiny_engine("deepseek2", backend) as engine:
        always(engine, drafter=lambda *_: Guesses(ids(expected), n_right))
        found, summary = answer(engine, PATTERN, n=30)
        assert ids(found) == ids(expected)
        n_passes = -(-29 // (n_right + 1))
        assert summary.timings.draft_n_accepted == pytest.approx(29 - n_passes, abs=1)
        with engine.session() as session:  # what the session holds are the tokens of the answer
            answer(session, PATTERN, n=10)
            assert session.tokens == (*PATTERN, *ids(expected)[:9])


def test_what_was_answered_before_is_guessed():
    with tiny_engine("qwen2", prefix_cache=False) as engine:
        engine.frontend.speculation.pace.always = True
        first, summary = answer(engine, PATTERN, n=24)
        again, repeated = answer(engine, PATTERN, n=24)
        assert ids(again) == ids(first)
        assert repeated.timings.draft_n_accepted >= 15 > summary.timings.draft_n_accepted


def test_a_seed_gives_the_tokens_that_it_gives_without_drafts():
    for n_right in (0, 2, 4):
        plain, engine = scripted_engine(random_logits), scripted_engine(random_logits)
        expected = ids(answer(plain, "ab:", temperature=1.0, seed=7)[0])
        always(engine, drafter=lambda *_, known=expected, n=n_right: Guesses(known, n))
        assert ids(answer(engine, "ab:", temperature=1.0, seed=7)[0]) == expected


class TinyStream:
    """A model of five tokens whose distribution depends on the last token."""

    capacity, cache = 1000, None

    def __init__(self):
        self.tokens = []
        self.logits = np.random.default_rng(4).normal(size=(5, 5)).astype(np.float32)

    @property
    def length(self):
        return len(self.tokens)

    def forward(self, tokens):
        return self.forward_all(tokens)[-1]

    def forward_all(self, tokens):
        self.tokens += tokens
        return self.logits[list(tokens)]

    def truncate(self, length):
        del self.tokens[length:]


@pytest.mark.parametrize("draft", [0, 1, 2, 3, 4])
def test_the_distribution_of_two_tokens_is_the_model_s(draft):
    """Chi-square over all 25 pairs, with a seed: 24 degrees of freedom, 0.1 % above 51.2."""
    stream, sampler = TinyStream(), Sampler(SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=9))
    n, counts = 3000, np.zeros((5, 5))
    pace = Pace(1, always=True)
    for _ in range(n):
        transcript = Transcript(stream)
        stream.truncate(0)
        logits = transcript.forward([0])
        speculator = Speculator(transcript, Guesses([draft] * 9, 9), pace)
        first, _ = sampler.sample(logits)
        second, _ = sampler.sample(speculator.forward(first, 9))
        third, _ = sampler.sample(speculator.forward(second, 9))
        counts[second, third] += 1
    probabilities = np.exp(stream.logits) / np.exp(stream.logits).sum(axis=1, keepdims=True)
    expected = n * (probabilities[0] @ probabilities)[:, None] * probabilities
    assert ((counts - expected) ** 2 / expected).sum() < 51.2


@every_backend
def test_a_draft_model_gives_the_answer_of_the_large_one(backend, tmp_path):
    small = export(write_checkpoint(tmp_path / "small", "qwen2", seed=1), tmp_path / "out", quant="int8")
    with (
        Engine.load(small.bundle.artifact(), backend=backend) as other,
        tiny_engine("qwen2", backend, speculate="off") as plain,
        tiny_engine("qwen2", backend) as twin,
    ):
        for draft, accepted in ((other, False), (twin, True)):
            with tiny_engine("qwen2", backend, draft=draft) as engine:
                engine.frontend.speculation.pace.always = True
                for prompt in PROMPTS:
                    found, summary = answer(engine, prompt, n=20)
                    assert ids(found) == ids(answer(plain, prompt, n=20)[0])
                    if accepted:
                        assert summary.timings.draft_n_accepted > 10
            assert draft._budget._n_streams == 0


def test_a_draft_model_that_is_full_stops_guessing():
    with tiny_engine("llama", speculate="off") as engine:
        stream = engine.backend.new_stream(24)
        drafter = DraftModel(stream, PATTERN, 512, lambda: None)
        for token in PATTERN:
            if drafter.kind() is not None:
                drafter.prepare()
                assert 1 <= len(drafter.propose(4)) <= 4
            drafter.feed(token)
        assert drafter.kind() is None


def test_a_draft_of_another_vocabulary_is_refused(tmp_path):
    other = export(write_checkpoint(tmp_path / "other", "llama", vocab_size=600), tmp_path / "out", quant="int8")
    changed = scripted_engine(saying("x"))
    assert other.bundle
    with pytest.raises(InputError, match="draft: token 0 of model is"):
        tiny_engine("llama", draft=changed)


@pytest.mark.parametrize("value", ["on", 0, -1, True, 1.5, 65, None])
def test_a_wrong_number_of_drafts_is_an_error(value):
    with pytest.raises(InputError, match="speculate is"):
        tiny_engine("llama", speculate=value)


def test_deterministic_engines_guess_only_where_bits_are_kept():
    with tiny_engine("llama", "reference", deterministic=True) as engine:
        assert engine.frontend.speculation is None
    for backend in set(BACKENDS) - {"reference"}:
        with tiny_engine("llama", backend, deterministic=True, speculate=20) as engine:
            assert engine.frontend.speculation.pace.max_drafts == 4


def test_drafts_end_with_the_answer_and_the_context():
    for n, context in ((3, 64), (None, 44)):
        with tiny_engine("llama", context=context, speculate="off") as plain:
            expected, expected_summary = answer(plain, PATTERN * 3, n=n)
        with always(tiny_engine("llama", context=context), 16) as engine:
            found, summary = answer(engine, PATTERN * 3, n=n)
            assert ids(found) == ids(expected)
            assert summary.finish_reason == expected_summary.finish_reason


def test_an_answer_that_is_cancelled_between_drafts_keeps_its_tokens():
    with always(tiny_engine("llama")) as engine, engine.session() as session:
        generation = session.generate([5, 6] * 8, max_tokens=30, temperature=0)
        tokens = [next(generation).token_id for _ in range(6)]
        generation.cancel()
        assert list(generation) == []
        assert session.tokens == (*[5, 6] * 8, *tokens)[: len(session.tokens)]
        ended = list(session.generate([*[5, 6] * 8, *tokens], max_tokens=4, temperature=0))
        with engine.session() as fresh:
            assert [p.token_id for p in ended] == [
                p.token_id for p in fresh.generate([*[5, 6] * 8, *tokens], max_tokens=4, temperature=0)
            ]


def test_the_first_drafter_with_a_draft_is_asked():
    chosen = FirstOf([PromptLookup([1, 2, 3]), Guesses([1] * 9, 9)])
    assert (chosen.kind(), chosen.propose(2)) == (Kind("lookup", 0), [1, 1])
    assert FirstOf([]).kind() is None
    assert FirstOf([]).propose(2) == ()
