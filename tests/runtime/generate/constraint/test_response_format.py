"""``response_format`` over a scripted model: what an answer may be, and what is refused."""

import gc
import json
import re
import sys
import weakref

import numpy as np
import pytest
from scripted_model import EOS, ScriptedBackend, byte_tokenizer, random_logits, saying, scripted_engine

from sprat.errors import BackendError, InputError
from sprat.runtime.engine import Engine
from sprat.runtime.generate.constraint.grammar import GrammarVocabulary

QUESTION = [{"role": "user", "content": "Where?"}]
SCHEMA = {
    "type": "object",
    "properties": {"device": {"enum": ["lamp", "door"]}, "on": {"type": "boolean"}},
    "required": ["device", "on"],
    "additionalProperties": False,
}
AS_OPENAI = {"type": "json_schema", "json_schema": {"name": "command", "strict": True, "schema": SCHEMA}}
AS_RESPONSES = {"type": "json_schema", "name": "command", "schema": SCHEMA}


@pytest.fixture
def engine():
    return scripted_engine(random_logits)


@pytest.mark.parametrize("asked", [AS_OPENAI, AS_RESPONSES])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_an_answer_matches_its_schema(engine, asked, temperature):
    for seed in range(5):
        found = json.loads(engine.generate("x", response_format=asked, temperature=temperature, seed=seed).text())
        assert found.keys() == {"device", "on"}
        assert found["device"] in {"lamp", "door"}


def test_an_answer_ends_without_an_end_token_where_nothing_may_follow(engine):
    pieces = list(engine.generate("x", response_format=AS_OPENAI))
    assert pieces[-1].token_id == ord("}")
    assert EOS not in [piece.token_id for piece in pieces]


@pytest.mark.parametrize(
    ("asked", "pattern"),
    [
        ({"type": "regex", "regex": "[0-9]{2}:[0-5][0-9]"}, r"\d\d:[0-5]\d"),
        ({"type": "choices", "choices": ["on", "öff", 'say "x"\n', "on and on"]}, r'on|öff|say "x"\n|on and on'),
        ({"type": "grammar", "grammar": 'start: "set " /[a-z]+/ "=" NUMBER\nNUMBER: /[0-9]+/'}, r"set [a-z]+=\d+"),
        ({"type": "json_object"}, r"\{.*"),
        ({"type": "json_schema", "schema": {"type": "integer"}}, r"-?\d+"),
    ],
)
def test_an_answer_matches_its_format(engine, asked, pattern):
    for seed in range(5):
        text = engine.generate("x", response_format=asked, max_tokens=60, close_json=True, seed=seed).text()
        assert re.fullmatch(pattern, text, re.DOTALL)


def test_text_is_any_text(engine):
    plain = engine.generate("x", max_tokens=9, seed=1).text()
    assert engine.generate("x", max_tokens=9, seed=1, response_format={"type": "text"}).text() == plain
    assert engine.generate("x", max_tokens=9, seed=1, response_format=None).text() == plain


def test_a_chat_a_session_and_a_stream_are_bound(engine):
    assert json.loads(engine.chat(QUESTION, response_format=AS_OPENAI)["choices"][0]["message"]["content"])
    chunks = engine.stream_chat(QUESTION, response_format=AS_OPENAI)
    assert json.loads("".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks))
    with engine.session() as session:
        for _ in range(2):
            reply = session.chat("Where?", response_format=AS_OPENAI)["choices"][0]
            assert (json.loads(reply["message"]["content"]).keys(), reply["finish_reason"]) == (
                {"device", "on"},
                "stop",
            )
        assert len(session.messages) == 4


def test_an_answer_that_is_cut_says_so(engine):
    generation = engine.generate("x", response_format=AS_OPENAI, max_tokens=5)
    assert generation.text().startswith('{"d'[:1])
    assert generation.summary.finish_reason == "length"


def test_a_model_that_answers_right_is_not_changed():
    engine = scripted_engine(saying('{"device": "door", "on": false}'))
    assert engine.generate("x:", response_format=AS_OPENAI).text() == '{"device": "door", "on": false}'


def test_logits_beyond_the_vocabulary_are_never_sampled():
    backend = ScriptedBackend(lambda _tokens: np.arange(300, dtype=np.float32))  # padding has the largest
    backend.vocab_size = 300
    engine = Engine(backend, byte_tokenizer())
    assert engine.generate("x", response_format={"type": "choices", "choices": ["ab"]}).text() == "ab"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"type": "json"}, "unknown type 'json'.*json_object"),
        ({}, "unknown type"),
        ({"type": "json_schema"}, "has the schema None, expected a JSON schema"),
        ({"type": "json_schema", "json_schema": 5}, "has the schema None"),
        ({"type": "json_schema", "schema": {"not": {}}}, "uses 'not', which constrained answers do not support"),
        ({"type": "json_schema", "schema": {"if": {}, "then": {}}}, "uses 'if', 'then'"),
        ({"type": "json_schema", "schema": {"type": "array", "uniqueItems": True}}, "uses 'uniqueItems'"),
        ({"type": "json_schema", "schema": {"type": "string", "format": "foo"}}, "Unknown format: foo"),
        ({"type": "json_schema", "schema": {"oneOf": [{"minimum": 1}, {"type": "number"}]}}, "'oneOf'.*use 'anyOf'"),
        ({"type": "json_schema", "schema": {"type": "strin"}}, "Invalid type: strin"),
        ({"type": "json_schema", "schema": {"enum": [float("nan")]}}, "not JSON"),
        ({"type": "json_schema", "schema": {"enum": [{1, 2}]}}, "not JSON"),
        ({"type": "regex"}, "has the regex None, expected it as text"),
        ({"type": "regex", "regex": "(?=a)b"}, "look-around.*is not supported"),
        ({"type": "grammar", "grammar": 'start: "a" b'}, 'unknown name: "b"'),
        ({"type": "choices", "choices": "ab"}, "has the choices 'ab', expected a list of 1 to 10,000 texts"),
        ({"type": "choices", "choices": []}, "expected a list of 1 to 10,000 texts"),
        ({"type": "choices", "choices": ["a", ""]}, "none of them empty"),
        (5, "response_format is 5, expected a dict"),
    ],
)
def test_a_format_that_cannot_be_used_is_an_error_before_anything_runs(engine, asked, reason):
    with pytest.raises(InputError, match=reason):
        engine.generate("x", response_format=asked)
    assert [stream.processed for stream in engine.backend.streams] in ([], [[]])


def test_a_grammar_that_becomes_too_complex_is_an_error_of_the_answer(engine):
    ambiguous = "start: " + " ".join(["(/[ab]/)*"] * 400)
    generation = engine.generate("x", response_format={"type": "grammar", "grammar": ambiguous}, max_tokens=400)
    with pytest.raises(InputError, match="the answer cannot go on"):
        generation.text()


def test_without_llguidance_the_extra_is_named(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(BackendError, match=r"pip install 'sprat\[constrain\]'"):
        engine.generate("x", response_format={"type": "json_object"})


def test_a_model_without_an_end_token_is_an_error():
    engine = scripted_engine(random_logits)
    engine.tokenizer.vocabulary.eog_ids and object.__setattr__(engine.tokenizer.vocabulary, "eog_ids", frozenset())
    with pytest.raises(BackendError, match="no end token"):
        engine.generate("x", response_format={"type": "json_object"})


def test_the_vocabulary_is_made_once_and_freed_with_the_engine():
    engine = scripted_engine(random_logits)
    made = [GrammarVocabulary.of(engine.tokenizer, 260) for _ in range(2)]
    assert made[0] is made[1]
    assert made[0].tokenize("ab") == [*b"ab"]
    alive = weakref.ref(engine.tokenizer)
    del engine
    gc.collect()
    assert alive() is None
    assert made[0].matcher('start: "a"').compute_ff_tokens() in ([], [ord("a")])


class TestClosing:
    def test_an_answer_is_finished_within_max_tokens(self, engine):
        asked = {"type": "json_schema", "schema": {"type": "array", "items": {"type": "string"}, "minItems": 2}}
        for max_tokens in (8, 9, 15, 40):
            for seed in range(5):
                generation = engine.generate(
                    "x", response_format=asked, close_json=True, max_tokens=max_tokens, seed=seed, temperature=2.0
                )
                assert len(json.loads(generation.text())) >= 2
                assert generation.summary.finish_reason == "stop"

    def test_without_max_tokens_the_context_counts(self):
        engine = scripted_engine(random_logits, context=60)
        text = engine.generate(
            "x", response_format={"type": "json_schema", "schema": {"type": "string"}}, close_json=True
        )
        assert isinstance(json.loads(text.text()), str)

    def test_too_few_tokens_are_an_error_before_anything_runs(self, engine):
        with pytest.raises(InputError, match=r"found no answer of at most 4 tokens.*raise max_tokens"):
            engine.generate("x", response_format=AS_OPENAI, close_json=True, max_tokens=4)

    def test_a_repetition_is_left(self, engine):
        asked = {"type": "regex", "regex": "a+b{3}c"}
        assert engine.generate("x", response_format=asked, close_json=True, max_tokens=7).text().endswith("bbbc")

    def test_the_log_probability_is_that_of_the_token_that_was_taken(self, engine):
        asked = {"type": "regex", "regex": "[a-z]+!"}
        pieces = list(engine.generate("x", response_format=asked, close_json=True, max_tokens=3, seed=2))
        tokens = [*b"x"]
        for piece in pieces:
            logits = random_logits([256, *tokens])
            assert piece.logprob == pytest.approx(logits[piece.token_id] - np.logaddexp.reduce(logits), abs=1e-4)
            tokens.append(piece.token_id)
        assert "!" in {piece.text for piece in pieces}
