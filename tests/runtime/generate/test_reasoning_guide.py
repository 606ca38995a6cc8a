"""Reasoning is free and within its budget; what comes after it is bound."""

import json

import numpy as np
import pytest
from scripted_model import ASSISTANT, EOS, ScriptedBackend, byte_tokenizer, random_logits, scripted_engine

from sprat.errors import InputError
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.engine import Engine

QUESTION = [{"role": "user", "content": "Where?"}]
OPENED = "{{ messages[0].content }}<|assistant|><think>"
PLAIN = "{{ messages[0].content }}<|assistant|>"
CLOSED = "{{ messages[0].content }}<|assistant|><think>\n\n</think>\n\n."
CHOICES = {"response_format": {"type": "choices", "choices": ["yes", "no"]}}


def writing(text, end=EOS):
    """Logits that write ``text`` after the prompt; the runner-up is "y"."""

    def logits_after(tokens):
        logits = np.zeros(ScriptedBackend.vocab_size, np.float32)
        if ASSISTANT in tokens:
            answer = bytes(token for token in tokens[len(tokens) - tokens[::-1].index(ASSISTANT) :] if token < 256)
            written = answer.removeprefix(b"<think>")
            logits[[*text.encode(), end][min(len(written), len(text.encode()))]] = 50
        logits[ord("y")] += 1
        return logits

    return logits_after


def message(engine, **options):
    choice = engine.chat(QUESTION, temperature=0, **{"max_tokens": 80} | options)["choices"][0]
    return choice["message"].get("reasoning_content"), choice["message"]["content"], choice["finish_reason"]


def test_reasoning_that_the_prompt_opens_is_free_and_the_answer_bound():
    engine = scripted_engine(writing("I think { not.\n</think>\n\nno way"), template=OPENED)
    assert message(engine, **CHOICES) == ("I think { not.", "no", "stop")


def test_reasoning_that_is_closed_by_the_prompt_is_over():
    engine = scripted_engine(writing("maybe"), template=CLOSED)
    assert message(engine, **CHOICES)[1:] == ("yes", "stop")


def test_reasoning_does_not_end_the_answer():
    engine = scripted_engine(writing("Hm", end=EOS), template=OPENED)
    thought, answer, reason = message(engine, max_tokens=20, **CHOICES)
    assert (thought[:3], answer, reason) == ("Hmy", "", "length")  # the end was not allowed, the runner-up was


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_budget_closes_the_reasoning_and_the_model_answers(budget):
    engine = scripted_engine(writing("abcdefghijklmnopqrstuvwxyz"), template=OPENED)
    thought, answer, _ = message(engine, max_thinking_tokens=budget)
    assert thought == ("abcdefgh"[:budget] or None)
    assert answer  # the script goes on


def test_a_budget_leaves_shorter_reasoning_alone():
    engine = scripted_engine(writing("Hm.\n</think>\n\nno"), template=OPENED)
    assert message(engine, max_thinking_tokens=50) == ("Hm.", "no", "stop")


def test_after_a_budget_the_answer_is_bound():
    engine = scripted_engine(writing("abcdefghijklmnop"), template=OPENED)
    assert message(engine, max_thinking_tokens=4, **CHOICES) == ("abcd", "yes", "stop")


def test_close_json_leaves_room_for_the_answer_after_endless_reasoning():
    engine = scripted_engine(writing("ab" * 200), template=OPENED)
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    asked = {"response_format": {"type": "json_schema", "schema": schema}, "close_json": True}
    thought, answer, reason = message(engine, max_tokens=60, **asked)
    assert (json.loads(answer).keys(), reason) == ({"a"}, "stop")
    assert len(thought) > 20


def test_close_json_leaves_all_tokens_to_an_answer_without_reasoning():
    text = '{"a": "' + 40 * "b" + '"}'
    engine = scripted_engine(writing(text), template=PLAIN)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    asked = {"response_format": {"type": "json_schema", "schema": schema}, "close_json": True}
    assert message(engine, max_tokens=60, **asked)[1:] == (text, "stop")


def test_too_few_tokens_for_reasoning_and_answer_are_an_error():
    asked = {"response_format": {"type": "json_object"}, "close_json": True}
    with pytest.raises(InputError, match=r"leaves 10 tokens for the reasoning.*raise max_tokens"):
        message(scripted_engine(writing("x"), template=OPENED), max_tokens=10, **asked)
    assert message(scripted_engine(writing("{}"), template=PLAIN), max_tokens=10, **asked)[1:] == ("{}", "stop")


def test_a_model_may_open_reasoning_itself():
    special = ["<bos>", "<eos>", "<|user|>", "<|assistant|>", "<think>"]
    script = [260, *b"Hm.\n</think>\nno way"]

    def logits_after(tokens):
        logits = np.zeros(261, np.float32)
        answered = tokens[::-1].index(ASSISTANT) if ASSISTANT in tokens else 0
        logits[script[min(answered, len(script) - 1)]] = 50
        return logits

    backend = ScriptedBackend(logits_after)
    backend.vocab_size = 261
    engine = Engine(backend, byte_tokenizer(special), template=ChatTemplate(PLAIN, {}))
    assert message(engine, **CHOICES)[1:] == ("no", "stop")
    assert engine.chat(QUESTION, temperature=0, max_tokens=9, max_thinking_tokens=2)["usage"]["completion_tokens"] == 9


def test_without_reasoning_a_budget_changes_nothing():
    engine = scripted_engine(writing("no."), template=PLAIN)
    assert message(engine, max_thinking_tokens=0) == (None, "no.", "stop")


@pytest.mark.parametrize("n_tokens", [0, 3, 10])
def test_min_tokens_puts_off_the_end(n_tokens):
    engine = scripted_engine(writing("no."), template=PLAIN)
    reply = engine.chat(QUESTION, temperature=0, min_tokens=n_tokens, max_tokens=30)
    assert reply["usage"]["completion_tokens"] == max(4, n_tokens + 1)


def test_min_tokens_does_not_block_a_grammar_that_is_matched():
    asked = {"response_format": {"type": "regex", "regex": "[0-9]"}, "min_tokens": 10}
    assert len(scripted_engine(random_logits).generate("x", **asked).text()) == 1


def test_min_tokens_are_those_of_transformers():
    processors, torch = (
        pytest.importorskip("transformers.generation.logits_process"),
        pytest.importorskip("torch"),
    )
    processor = processors.MinNewTokensLengthLogitsProcessor(3, 4, EOS)
    blocked = [bool(torch.isinf(processor(torch.zeros(1, 3 + n), torch.zeros(1, 260))[0, EOS])) for n in range(6)]
    engine = scripted_engine(lambda _tokens: np.eye(1, 260, EOS, dtype=np.float32)[0], template=PLAIN)
    pieces = list(engine.generate("x", temperature=0, min_tokens=4, max_tokens=6))
    assert [piece.token_id != EOS for piece in pieces] == blocked[: len(pieces)]
