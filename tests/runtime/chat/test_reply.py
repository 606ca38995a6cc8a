"""Several replies and log probabilities, in OpenAI's format."""

import gc
import itertools
import math

import numpy as np
import pytest
from scripted_model import random_logits, saying, scripted_engine

from sprat.errors import InputError

QUESTION = [{"role": "user", "content": "Where?"}]


def test_log_probabilities_name_tokens_and_others_in_their_place():
    engine = scripted_engine(random_logits)
    choice = engine.chat(QUESTION, logprobs=True, top_logprobs=3, max_tokens=5, seed=1)["choices"][0]
    entries = choice["logprobs"]["content"]
    data = bytes(itertools.chain.from_iterable(entry["bytes"] for entry in entries))
    assert data.decode("utf-8", "replace") == choice["message"]["content"]
    for entry in entries:
        others = [other["logprob"] for other in entry["top_logprobs"]]
        assert others == sorted(others, reverse=True)
        assert len(others) == 3
        assert entry["logprob"] <= others[0] < 0
        assert entry["token"] == bytes(entry["bytes"]).decode("utf-8", "replace")


def test_log_probabilities_of_chunks_join_to_those_of_the_completion():
    stream = scripted_engine(random_logits).stream_chat(QUESTION, logprobs=True, max_tokens=5, seed=1)
    parts = [chunk["choices"][0].get("logprobs", {"content": []})["content"] for chunk in stream]
    entries = list(itertools.chain.from_iterable(parts))
    assert entries == stream.completion()["choices"][0]["logprobs"]["content"]
    assert all(entry["top_logprobs"] == [] for entry in entries)


def test_reasoning_has_no_log_probabilities():
    engine = scripted_engine(saying("<think>Hm.</think>no"))
    choice = engine.chat(QUESTION, logprobs=True)["choices"][0]
    assert choice["message"]["reasoning_content"] == "Hm."
    assert "".join(entry["token"] for entry in choice["logprobs"]["content"]).endswith("no<eos>")
    assert "Hm" not in "".join(entry["token"] for entry in choice["logprobs"]["content"])


def test_a_piece_has_the_most_probable_tokens():
    (piece,) = scripted_engine(random_logits).generate("x", max_tokens=1, top_logprobs=2)
    logits = random_logits([256, *b"x"])
    best = int(np.argmax(logits))
    assert piece.top_logprobs[0] == (best, pytest.approx(logits[best] - np.logaddexp.reduce(logits), abs=1e-4))
    assert math.isfinite(piece.top_logprobs[1][1])


def test_several_replies_share_the_prompt_and_differ():
    engine = scripted_engine(random_logits)
    reply = engine.chat(QUESTION, n=3, seed=5, max_tokens=6)
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    alone = [engine.chat(QUESTION, seed=5 + index, max_tokens=6)["choices"][0] for index in range(3)]
    assert texts == [choice["message"]["content"] for choice in alone]
    (stream, *_) = engine.backend.streams
    assert [len(call) for call in stream.processed if len(call) > 1] == [9]  # the prompt was processed once
    assert stream.closed
    assert reply["usage"]["completion_tokens"] == 18
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + 18
    assert reply["timings"]["predicted_n"] == 18


def test_chunks_say_which_reply_they_belong_to():
    chunks = list(scripted_engine(random_logits).stream_chat(QUESTION, n=2, max_tokens=3, seed=1))
    indices = [chunk["choices"][0]["index"] for chunk in chunks]
    assert indices == sorted(indices)
    assert [index for index, chunk in zip(indices, chunks, strict=True) if chunk["choices"][0]["finish_reason"]] == [
        0,
        1,
    ]


def test_a_cancelled_stream_begins_no_further_reply():
    engine = scripted_engine(random_logits)
    stream = engine.stream_chat(QUESTION, n=3, max_tokens=6)
    next(stream)
    stream.cancel()
    assert [choice["finish_reason"] for choice in stream.completion()["choices"]] == ["cancelled"]
    assert engine.backend.streams[0].closed


def test_a_stream_that_is_dropped_frees_its_cache():
    engine = scripted_engine(random_logits)
    stream = engine.stream_chat(QUESTION, n=2)
    del stream
    gc.collect()
    assert engine.backend.streams[0].closed


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", 129])
def test_a_wrong_number_of_replies_is_an_error(n):
    with pytest.raises(InputError, match=r"n is .*expected 1 to 128"):
        scripted_engine(random_logits).chat(QUESTION, n=n)


@pytest.mark.parametrize("options", [{"top_logprobs": 21}, {"top_logprobs": -1}, {"logprobs": 5}])
def test_wrong_log_probabilities_are_an_error(options):
    with pytest.raises(InputError, match=next(iter(options))):
        scripted_engine(random_logits).chat(QUESTION, **options)


def test_a_session_has_one_reply():
    with scripted_engine(random_logits).session() as session, pytest.raises(InputError, match="n is 2, but"):
        session.chat("Where?", n=2)


@pytest.mark.parametrize("options", [{"logit_bias": {999: 1}}, {"min_tokens": -1}, {"max_thinking_tokens": "x"}])
def test_wrong_options_are_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        scripted_engine(random_logits).chat(QUESTION, **options)


def test_a_bias_forces_and_bans():
    engine = scripted_engine(random_logits)
    assert engine.generate("x", logit_bias={ord("q"): 100}, max_tokens=4, seed=1).text() == "qqqq"
    banned = {str(token): -100 for token in range(256) if token != ord("z")}
    assert engine.generate("x", logit_bias=banned, max_tokens=3, seed=1).text() == "zzz"
