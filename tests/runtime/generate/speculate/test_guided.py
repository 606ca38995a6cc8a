"""What binds an answer binds it with drafts, too: every token and log probability is that of an answer without."""

import json

import pytest
from scripted_model import ScriptedBackend, byte_tokenizer, random_logits, scripted_engine

from sprat.runtime.engine import Engine
from sprat.runtime.generate.speculate.drafter import Kind
from sprat.runtime.generate.speculate.pace import Pace
from sprat.runtime.generate.speculate.prompt_lookup import PromptLookup
from sprat.runtime.generate.speculate.speculator import Speculation

SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "kitchen"]}, "level": {"type": "integer"}},
    "required": ["on", "room"],
    "additionalProperties": False,
}
BOUND = {
    "schema": {"response_format": {"type": "json_schema", "schema": SCHEMA}, "close_json": True},
    "object": {"response_format": {"type": "json_object"}, "close_json": True},
    "regex": {"response_format": {"type": "regex", "regex": "([a-f]{3} ){2,9}"}},
    "choices": {"response_format": {"type": "choices", "choices": ["lights on", "lights off", "lights"]}},
    "min_tokens": {"min_tokens": 30, "logit_bias": {257: 200.0}},
    "sampling": {"xtc_probability": 0.5, "xtc_threshold": 0.01, "presence_penalty": 0.5, "frequency_penalty": 0.2},
    "biased": {"logit_bias": {97: 4.0}, "typical_p": 0.9, "top_n_sigma": 2.0, "top_logprobs": 3},
}
THINKING = {"max_thinking_tokens": 7, "min_tokens": 3, "response_format": {"type": "regex", "regex": "[a-f]{3,20}"}}
SAMPLED = [{"temperature": 0}, {"temperature": 1.0, "seed": 3}, {"temperature": 1.5, "seed": 4, "top_k": 0}]


class Rereads:
    """Guesses the tokens of an answer that is known, each third of them wrong."""

    def __init__(self, known):
        self._known, self._at = known, 0

    def feed(self, _token):
        self._at += 1

    def kind(self):
        return Kind("lookup", 0)

    def prepare(self):
        pass

    def propose(self, n):
        guesses = self._known[self._at : self._at + n]
        return [token ^ (place % 3 == 2) for place, token in enumerate(guesses, self._at)]

    def close(self):
        pass


def guess(engine, known):
    drafts = Speculation(Pace(4, always=True), lambda *_: Rereads(known))
    object.__setattr__(engine.frontend, "speculation", drafts)
    return engine


def answered(engine, prompt, options):
    generation = engine.generate(prompt, max_tokens=60, **options)
    return list(generation), generation.summary


@pytest.mark.parametrize("sampling", SAMPLED)
@pytest.mark.parametrize("bound", BOUND)
def test_bound_answers_are_those_without_drafts(bound, sampling):
    if "response_format" in BOUND[bound]:
        pytest.importorskip("llguidance")
    options = {**BOUND[bound], **sampling}
    expected, plain = answered(scripted_engine(random_logits), "ab:", options)
    engine = guess(scripted_engine(random_logits), [piece.token_id for piece in expected])
    found, summary = answered(engine, "ab:", options)
    assert found == expected
    assert (summary.finish_reason, summary.usage) == (plain.finish_reason, plain.usage)
    assert summary.timings.draft_n > summary.timings.draft_n_accepted > 0
    if bound == "schema":
        assert json.loads("".join(piece.text for piece in found))


@pytest.mark.parametrize("sampling", SAMPLED)
def test_reasoning_with_a_budget_is_that_without_drafts(sampling):
    """The budget replaces the token that was sampled by the end of the reasoning."""
    pytest.importorskip("llguidance")

    def engine():
        special = ["<bos>", "<eos>", "<think>", "</think>"]
        return Engine(ScriptedBackend(random_logits), byte_tokenizer(special))

    options = {**THINKING, **sampling}
    prompt = [256, 97, 258]
    expected, _ = answered(engine(), prompt, options)
    tokens = [piece.token_id for piece in expected]
    assert 259 in tokens
    found, summary = answered(guess(engine(), tokens), prompt, options)
    assert found == expected
    assert summary.timings.draft_n_accepted > 0


def test_several_replies_are_those_without_drafts():
    asked = [{"role": "user", "content": "ab"}], {"n": 3, "seed": 5, "max_tokens": 20, "logprobs": True}
    expected = scripted_engine(random_logits).chat(asked[0], **asked[1])
    first = [entry["bytes"][0] for entry in expected["choices"][0]["logprobs"]["content"]]
    found = guess(scripted_engine(random_logits), first).chat(asked[0], **asked[1])
    assert found["choices"] == expected["choices"]
    assert found["timings"]["draft_n"] >= found["timings"]["draft_n_accepted"] > 0


@pytest.mark.parametrize("sampling", SAMPLED)
@pytest.mark.parametrize("close", [False, True])
def test_what_a_grammar_prescribes_is_checked_in_the_pass_before_it(close, sampling):
    """Nothing of it was seen before, so that a lookup alone finds no draft."""
    pytest.importorskip("llguidance")
    text = "Licht: (an|aus)! Bye"
    options = {"response_format": {"type": "regex", "regex": text}, "close_json": close, **sampling}
    expected, _ = answered(scripted_engine(random_logits), "x", options)
    engine = scripted_engine(random_logits)
    drafts = Speculation(Pace(4, always=True), lambda prompt, _, history, forced: PromptLookup(prompt, history, forced))
    object.__setattr__(engine.frontend, "speculation", drafts)
    found, summary = answered(engine, "x", options)
    assert found == expected
    assert summary.timings.draft_n_accepted >= 8
