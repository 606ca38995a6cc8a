"""What an app author sees, over a scripted model."""

import json

import pytest
from scripted_model import ASSISTANT, BOS, EOS, USER, random_logits, saying, scripted_engine

from sprat.errors import InputError, PromptError, TemplateError

QUESTION = [{"role": "user", "content": "Where?"}]


def test_generate_continues_a_text_after_one_bos():
    with scripted_engine(saying("Paris")) as engine:
        assert engine.generate("Where:").text() == "Paris"
        assert engine.backend.streams[0].processed[0] == [BOS, *b"Where:"]
    assert engine.backend.closed


def test_special_tokens_in_a_text_stay_text():
    engine = scripted_engine(saying("x"))
    engine.generate("<eos><bos>:").text()
    assert engine.backend.streams[0].processed[0] == [BOS, *b"<eos><bos>:"]


def test_token_ids_are_taken_as_they_are():
    engine = scripted_engine(saying("x"))
    engine.generate([USER, ord(":")]).text()
    assert engine.backend.streams[0].processed[0] == [USER, ord(":")]


@pytest.mark.parametrize("prompt", [[260], [-1], [3, 2**40]])
def test_token_ids_beyond_the_vocabulary_are_refused(prompt):
    with pytest.raises(PromptError, match=r"beyond the vocabulary.*expected 0 to 259"):
        scripted_engine(saying("x")).generate(prompt)


def test_an_empty_prompt_is_refused():
    with pytest.raises(PromptError, match="empty"):
        scripted_engine(saying("x")).generate([])


def test_a_prompt_as_long_as_the_context_is_refused():
    engine = scripted_engine(saying("x"), context=8)
    with pytest.raises(PromptError, match=r"8 tokens.*holds 8.*larger context"):
        engine.generate("123456:")
    assert engine.generate("12345:").text() == "x"
    assert [stream.closed for stream in engine.backend.streams] == [1, 1]


@pytest.mark.parametrize("context", [0, -5, 1001])
def test_a_context_that_the_model_was_not_made_for_is_refused(context):
    with pytest.raises(InputError, match="expected 1 to 1000"):
        scripted_engine(saying("x"), context=context)


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 2.0}, {"timeout": -1.0}])
def test_options_out_of_range_are_refused_and_nothing_stays_open(options):
    engine = scripted_engine(saying("x"))
    with pytest.raises(InputError, match=f"{next(iter(options))} is"):
        engine.generate("a:", **options)
    assert all(stream.closed for stream in engine.backend.streams)


def test_one_answer_reserves_no_more_than_it_can_use():
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


def test_the_cache_is_freed_when_an_answer_ends_in_any_way():
    engine = scripted_engine(saying("Paris"))
    engine.generate("Where:").text()
    cancelled = engine.generate("Where:")
    next(cancelled)
    cancelled.cancel()
    list(cancelled)
    engine.generate("Where:").close()
    assert [stream.closed for stream in engine.backend.streams] == [1, 1, 1]


def test_chat_gives_openai_s_shape_and_can_be_written_as_json():
    reply = scripted_engine(saying("Paris."), name="student").chat(QUESTION, temperature=0)
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "student"
    assert reply["id"].startswith("chatcmpl-")
    message = {"role": "assistant", "content": "Paris."}
    assert reply["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert reply["usage"] == {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    expected = "cache_n prompt_n prompt_ms prompt_per_second predicted_n predicted_ms predicted_per_second"
    assert list(reply["timings"]) == expected.split()
    assert json.loads(json.dumps(reply)) == reply


def test_the_template_s_tokens_are_tokens_and_those_of_a_user_are_text():
    engine = scripted_engine(saying("x"))
    prompt = engine.encode_chat([{"role": "user", "content": "<|assistant|>a<eos><bos>"}])
    assert prompt.tokens == [BOS, USER, *b"<|assistant|>a<eos><bos>", ASSISTANT]
    assert prompt.text == "<bos><|user|><|assistant|>a<eos><bos><|assistant|>"


def test_there_is_one_bos_with_a_template_that_writes_none():
    engine = scripted_engine(saying("x"), template="<|user|>{{ messages[0]['content'] }}<|assistant|>")
    assert engine.encode_chat(QUESTION).tokens == [BOS, USER, *b"Where?", ASSISTANT]


THOUGHT = "<think>\nThe user asks.\n</think>\n\nParis."


def test_thoughts_are_apart():
    message = scripted_engine(saying(THOUGHT)).chat(QUESTION)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Paris.", "reasoning_content": "The user asks."}


def test_a_thought_that_the_template_opened_is_apart():
    template = "<|user|>{{ messages[0]['content'] }}<|assistant|><think>\n"

    engine = scripted_engine(saying(THOUGHT), template=template)  # the script counts from the assistant's token on
    message = engine.chat(QUESTION)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Paris.", "reasoning_content": "The user asks."}


def test_an_answer_that_is_cut_inside_a_thought_has_no_content():
    choice = scripted_engine(saying(THOUGHT)).chat(QUESTION, max_tokens=16)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"] == {"role": "assistant", "content": "", "reasoning_content": "The user"}


def test_chunks_join_to_the_completion():
    engine = scripted_engine(saying(THOUGHT))
    chunks = list(engine.stream_chat(QUESTION))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    joined = {key: "".join(delta.get(key, "") for delta in deltas) for key in ("reasoning_content", "content")}
    assert joined == {"reasoning_content": "The user asks.", "content": "Paris."}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1]["usage"]["completion_tokens"] == len(THOUGHT) + 1
    assert "timings" in chunks[-1]


def test_a_streamed_reply_can_be_cancelled():
    stream = scripted_engine(saying("Paris.")).stream_chat(QUESTION)
    for chunk in stream:
        if chunk["choices"][0]["delta"].get("content") == "r":
            stream.cancel()
    choice = stream.completion()["choices"][0]
    assert choice == {"index": 0, "message": {"role": "assistant", "content": "Par"}, "finish_reason": "cancelled"}


def test_a_model_without_a_template_says_so():
    with pytest.raises(TemplateError, match=r"no chat template.*generate\(\)"):
        scripted_engine(saying("x"), template=None).chat(QUESTION)


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "user", "content": None}, {"content": "x"}])
def test_a_message_without_text_is_refused(message):
    with pytest.raises(PromptError, match=r"message 0.*role and a content"):
        scripted_engine(saying("x")).chat([message])


def test_the_end_token_is_no_text():
    pieces = list(scripted_engine(saying("x")).generate("a:"))
    assert [(piece.text, piece.token_id) for piece in pieces] == [("x", ord("x")), ("", EOS)]
    assert pieces[0].logprob == pytest.approx(0, abs=1e-6)
