"""The public interface of ``Engine``, over a scripted model."""

import itertools
import json
import time

import numpy as np
import pytest
from scripted_model import (
    ASSISTANT,
    BOS,
    EOS,
    FIM,
    SPECIAL,
    USER,
    ScriptedBackend,
    byte_tokenizer,
    random_logits,
    saying,
    scripted_engine,
)

from sprat.errors import InputError, PromptError, TemplateError
from sprat.runtime.engine import Engine

QUESTION = [{"role": "user", "content": "Where?"}]


def test_generate_adds_one_bos_to_a_text():
    with scripted_engine(saying("Paris")) as engine:
        assert engine.generate("Where:").text() == "Paris"
        assert engine.backend.streams[0].processed[0] == [BOS, *b"Where:"]
    assert engine.backend.closed


def test_special_tokens_in_a_text_stay_text():
    engine = scripted_engine(saying("x"))
    engine.generate("<eos><bos>:").text()
    assert engine.backend.streams[0].processed[0] == [BOS, *b"<eos><bos>:"]


def test_token_ids_are_used_as_they_are():
    engine = scripted_engine(saying("x"))
    engine.generate([USER, ord(":")]).text()
    assert engine.backend.streams[0].processed[0] == [USER, ord(":")]


@pytest.mark.parametrize("prompt", [[260], [-1], [3, 2**40]])
def test_token_ids_outside_the_vocabulary_are_an_error(prompt):
    with pytest.raises(PromptError, match=r"outside the vocabulary.*expected 0 to 259"):
        scripted_engine(saying("x")).generate(prompt)


@pytest.mark.parametrize(
    "prompt", [b"Where", bytearray(b"Where"), memoryview(b"ab"), 5, None, {1: 2}, ["a"], [1.5], [[1]]]
)
def test_a_prompt_that_is_neither_text_nor_token_ids_is_an_error(prompt):
    with pytest.raises(PromptError, match=r"expected text \(str\) or a sequence of token ids"):
        scripted_engine(saying("x")).generate(prompt)


@pytest.mark.parametrize("n_chars", [10**7, 10**8])
@pytest.mark.parametrize("unit", ["a", " ", "é"])
def test_a_prompt_far_longer_than_the_context_is_not_encoded(n_chars, unit):
    engine, text = scripted_engine(saying("x")), unit * n_chars
    engine.tokenizer._engine = None  # would fail
    calls = (
        lambda: engine.generate(text),
        lambda: engine.encode(text),
        lambda: engine.chat([{"role": "user", "content": text}]),
        lambda: engine.session().chat(text),
        lambda: engine.session(overflow="shift").chat(text),
        lambda: engine.session().generate(text),
    )
    started = time.thread_time()
    for call in calls:
        with pytest.raises(PromptError, match=r"the context holds|conversation is too long"):
            call()
    assert time.thread_time() - started < 1


@pytest.mark.parametrize("ids", [(USER, 58), np.array([USER, 58]), iter([USER, 58])])
def test_every_sequence_of_integers_is_a_prompt(ids):
    assert scripted_engine(saying("x")).generate(ids).text() == "x"


def test_ids_without_an_end_are_too_many():
    with pytest.raises(PromptError, match=r"the prompt has [\d,]+ tokens, the context holds"):
        scripted_engine(saying("x")).generate(itertools.repeat(58)).text()


def test_more_stop_strings_than_can_be_searched_for_are_an_error():
    with pytest.raises(InputError, match="expected a string or at most 1,000 strings, none of them empty"):
        scripted_engine(saying("x")).generate("Where:", stop=[str(number) for number in range(1001)])


@pytest.mark.parametrize("call", ["generate", "chat"])
@pytest.mark.parametrize(
    "options", [{"stop": 5}, {"max_tokens": "5"}, {"max_tokens": 1.5}, {"timeout": "1"}, {"on_prefill": 5}]
)
def test_options_of_another_type_are_an_error_before_anything_runs(call, options):
    engine = scripted_engine(saying("x"))
    with pytest.raises(InputError, match=f"{next(iter(options))} is .*expected"):
        getattr(engine, call)("Where:" if call == "generate" else QUESTION, **options)


def test_an_empty_prompt_is_an_error():
    with pytest.raises(PromptError, match="empty"):
        scripted_engine(saying("x")).generate([])


def test_a_prompt_as_long_as_the_context_is_an_error():
    engine = scripted_engine(saying("x"), context=8)
    with pytest.raises(PromptError, match=r"8 tokens.*holds 8.*larger context"):
        engine.generate("123456:")
    assert engine.generate("12345:").text() == "x"
    assert [stream.closed for stream in engine.backend.streams] == [1, 1]


@pytest.mark.parametrize("context", [0, -5, 1001])
def test_a_context_longer_than_the_model_s_is_an_error(context):
    with pytest.raises(InputError, match="expected 1 to 1000"):
        scripted_engine(saying("x"), context=context)


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 2.0}, {"timeout": -1.0}])
def test_options_out_of_range_are_an_error_and_close_the_stream(options):
    engine = scripted_engine(saying("x"))
    with pytest.raises(InputError, match=f"{next(iter(options))} is"):
        engine.generate("a:", **options)
    assert all(stream.closed for stream in engine.backend.streams)


def test_one_answer_allocates_only_the_kv_entries_that_it_can_use():
    engine = scripted_engine(saying("Paris"))
    engine.generate("Where:", max_tokens=3).text()
    assert engine.backend.streams[0].capacity == 7 + 3


def test_a_seed_fixes_the_answer():
    engine = scripted_engine(random_logits)
    answers = [engine.generate("a:", max_tokens=30, seed=seed).text() for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_temperature_zero_needs_no_seed():
    engine = scripted_engine(random_logits)
    assert len({engine.generate("a:", max_tokens=30, temperature=0).text() for _ in range(3)}) == 1


def test_the_cache_is_freed_however_an_answer_ends():
    engine = scripted_engine(saying("Paris"))
    engine.generate("Where:").text()
    cancelled = engine.generate("Where:")
    next(cancelled)
    cancelled.cancel()
    list(cancelled)
    engine.generate("Where:").close()
    assert [stream.closed for stream in engine.backend.streams] == [1, 1, 1]


def test_chat_returns_openai_s_format_and_serializes_to_json():
    reply = scripted_engine(saying("Paris."), name="student").chat(QUESTION, temperature=0)
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "student"
    assert reply["id"].startswith("chatcmpl-")
    message = {"role": "assistant", "content": "Paris."}
    assert reply["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    counts = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    assert reply["usage"] == {**counts, "prompt_tokens_details": {"cached_tokens": 0}}
    expected = "cache_n prompt_n prompt_ms prompt_per_second predicted_n predicted_ms predicted_per_second"
    expected += " draft_n draft_n_accepted"
    assert list(reply["timings"]) == expected.split()
    assert json.loads(json.dumps(reply)) == reply


def test_special_tokens_of_the_template_are_tokens_and_those_of_a_message_are_text():
    engine = scripted_engine(saying("x"))
    prompt = engine.encode_chat([{"role": "user", "content": "<|assistant|>a<eos><bos>"}])
    assert prompt.tokens == [BOS, USER, *b"<|assistant|>a<eos><bos>", ASSISTANT]
    assert prompt.text == "<bos><|user|><|assistant|>a<eos><bos><|assistant|>"


def test_there_is_one_bos_if_the_template_writes_none():
    engine = scripted_engine(saying("x"), template="<|user|>{{ messages[0]['content'] }}<|assistant|>")
    assert engine.encode_chat(QUESTION).tokens == [BOS, USER, *b"Where?", ASSISTANT]


REASONED = "<think>\nThe user asks.\n</think>\n\nParis."


def test_reasoning_is_separated_from_the_content():
    message = scripted_engine(saying(REASONED)).chat(QUESTION)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Paris.", "reasoning_content": "The user asks."}


def test_reasoning_that_the_template_opens_is_separated():
    template = "<|user|>{{ messages[0]['content'] }}<|assistant|><think>\n"

    engine = scripted_engine(saying(REASONED), template=template)  # the scripted reply starts after the assistant token
    message = engine.chat(QUESTION)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Paris.", "reasoning_content": "The user asks."}


def test_an_answer_that_ends_inside_the_reasoning_has_no_content():
    choice = scripted_engine(saying(REASONED)).chat(QUESTION, max_tokens=16)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"] == {"role": "assistant", "content": "", "reasoning_content": "The user"}


def test_chunks_join_to_the_completion():
    engine = scripted_engine(saying(REASONED))
    chunks = list(engine.stream_chat(QUESTION))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    joined = {key: "".join(delta.get(key, "") for delta in deltas) for key in ("reasoning_content", "content")}
    assert joined == {"reasoning_content": "The user asks.", "content": "Paris."}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1]["usage"]["completion_tokens"] == len(REASONED) + 1
    assert "timings" in chunks[-1]


def test_a_streamed_reply_can_be_cancelled():
    stream = scripted_engine(saying("Paris.")).stream_chat(QUESTION)
    for chunk in stream:
        if chunk["choices"][0]["delta"].get("content") == "r":
            stream.cancel()
    choice = stream.completion()["choices"][0]
    assert choice == {"index": 0, "message": {"role": "assistant", "content": "Par"}, "finish_reason": "cancelled"}


def test_chat_without_a_template_is_an_error():
    with pytest.raises(TemplateError, match=r"no chat template.*generate\(\)"):
        scripted_engine(saying("x"), template=None).chat(QUESTION)


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "user", "content": None}, {"content": "x"}])
def test_a_message_without_role_or_content_is_an_error(message):
    with pytest.raises(PromptError, match=r"message 0.*role and content"):
        scripted_engine(saying("x")).chat([message])


def test_an_eog_token_has_no_text():
    pieces = list(scripted_engine(saying("x")).generate("a:"))
    assert [(piece.text, piece.token_id) for piece in pieces] == [("x", ord("x")), ("", EOS)]
    assert pieces[0].logprob == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [("caf\udce9", "the byte 0xE9 at index 3"), ("\ud83d", "the lone surrogate U\\+D83D at index 0")],
)
def test_a_text_that_is_not_unicode_is_a_prompt_error(text, message):
    engine = scripted_engine(saying("x"))
    with pytest.raises(PromptError, match=message):
        engine.generate(text)
    with pytest.raises(PromptError, match="not valid Unicode"):
        engine.chat([{"role": "user", "content": text}])
    with engine.session() as session, pytest.raises(PromptError, match="not valid Unicode"):
        session.chat(text)


def test_a_stop_string_may_be_a_special_token():
    def logits_after(tokens):
        script = [*b"ab", USER, *b"cd", EOS]
        logits = np.zeros(260, np.float32)
        logits[script[len(tokens) - tokens.index(ord(":")) - 1]] = 100
        return logits

    engine = scripted_engine(logits_after)
    assert engine.generate(":").text() == "abcd"
    assert engine.generate(":", stop=["<|user|>"]).text() == "ab"
    assert engine.generate(":", stop=["b<|user|>c"]).text() == "a"
    stopped = engine.generate(":", stop=["bc"])
    assert stopped.text() == "abcd"
    assert stopped.summary.finish_reason == "stop"


def test_the_models_sampling_parameters_apply_unless_the_caller_gives_others():
    def sampler_of(**options):
        return engine.generate(":", **options)._sampler.params

    engine = scripted_engine(saying("x"), sampling={"temperature": 0.3, "top_p": 0.5})
    assert (engine.sampling.temperature, engine.sampling.top_p, engine.sampling.top_k) == (0.3, 0.5, 40)
    assert sampler_of() == engine.sampling
    assert sampler_of(top_p=1.0).temperature == 0.3
    assert sampler_of(temperature=0.9).temperature == 0.9


def fim_engine():
    backend = ScriptedBackend(random_logits)
    backend.vocab_size += len(FIM)
    return Engine(backend, byte_tokenizer([*SPECIAL, *FIM]))


def test_a_suffix_makes_the_model_fill_in_the_middle():
    engine = fim_engine()
    pre, suf, mid = range(260, 263)
    engine.generate("<eos>in ", suffix=" is", max_tokens=2).text()
    assert engine.backend.streams[0].processed[0] == [BOS, pre, *b"<eos>in ", suf, *b" is", mid]


def test_a_suffix_needs_a_text_and_a_model_with_the_tokens():
    with pytest.raises(PromptError, match="has no fill-in-the-middle tokens"):
        scripted_engine(saying("x")).generate("a", suffix="b")
    with pytest.raises(PromptError, match="token ids, expected text beside a suffix"):
        fim_engine().generate([1], suffix="b")
    for wrong in (5, b"b", ["b"]):
        with pytest.raises(PromptError, match=r"the suffix is .*, expected text"):
            fim_engine().generate("a", suffix=wrong)
