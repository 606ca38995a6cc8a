"""Sessions keep their KV cache: a turn processes only its new tokens, and gives the same answer as without a cache."""

import pytest
from scripted_model import ASSISTANT, BOS, EOS, USER, random_logits, saying, scripted_engine

from sprat.errors import InputError, PromptError


def test_a_prompt_with_a_common_prefix_processes_only_the_rest():
    engine = scripted_engine(random_logits)
    with engine.session() as session:
        session.generate("One two three:", max_tokens=4, temperature=0).text()
        generation = session.generate("One two four:", max_tokens=4, temperature=0)
        text = generation.text()
    assert generation.summary.timings.cache_n == 1 + len("One two ")
    assert generation.summary.timings.prompt_n == len("four:")
    assert generation.summary.usage.prompt_tokens == 1 + len("One two four:")
    assert text == engine.generate("One two four:", max_tokens=4, temperature=0).text()


def test_generated_tokens_are_in_the_cache():
    with scripted_engine(random_logits).session() as session:
        answer = list(session.generate("a:", max_tokens=4, temperature=0))
        ids = [piece.token_id for piece in answer]
        generation = session.generate([BOS, *b"a:", *ids, 7, 8], max_tokens=1)
        generation.text()
    assert generation.summary.timings.prompt_n == 3  # the last generated token was sampled, but not processed


def test_repeating_a_prompt_processes_only_its_last_token():
    with scripted_engine(saying("Paris")).session() as session:
        assert session.generate("Where:").text() == "Paris"
        again = session.generate("Where:")
        assert again.text() == "Paris"
    assert (again.summary.timings.cache_n, again.summary.timings.prompt_n) == (6, 1)


def test_a_shorter_prompt_truncates_the_cache():
    with scripted_engine(saying("Paris")).session() as session:
        session.generate("Where is it:").text()
        assert session.generate("Where:").text() == "Paris"
        assert session.tokens == (BOS, *b"Where:Paris")


def test_a_new_answer_ends_a_running_one():
    with scripted_engine(saying("Paris")).session() as session:
        first = session.generate("Where:")
        assert next(first).text == "P"
        assert session.generate("Where:").text() == "Paris"
        assert list(first) == []
    assert first.summary.finish_reason == "cancelled"


def test_a_prompt_that_is_too_long_leaves_the_session_unchanged():
    with scripted_engine(saying("Paris"), context=20).session() as session:
        session.generate("Where:").text()
        before = session.tokens
        with pytest.raises(PromptError, match="context holds 20"):
            session.generate("a" * 30)
        assert session.tokens == before


def test_a_turn_of_a_conversation_processes_only_its_new_tokens():
    with scripted_engine(saying("Hi Ada.", "You are Ada.")).session() as session:
        first = session.chat("I am Ada.")
        second = session.chat("Who am I?")
    assert second["choices"][0]["message"]["content"] == "You are Ada."
    n_first = len([BOS, USER, *b"I am Ada.", ASSISTANT, *b"Hi Ada."])
    assert first["timings"]["cache_n"] == 0
    assert second["timings"]["cache_n"] == n_first
    assert second["timings"]["prompt_n"] == len([EOS, USER, *b"Who am I?", ASSISTANT])
    assert session.messages == [
        {"role": "user", "content": "I am Ada."},
        {"role": "assistant", "content": "Hi Ada."},
        {"role": "user", "content": "Who am I?"},
        {"role": "assistant", "content": "You are Ada."},
    ]


def test_reasoning_is_stored_separately_in_the_messages():
    with scripted_engine(saying("<think>Hm.</think>Yes.")).session() as session:
        session.chat("Really?")
        assert session.messages[-1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}


def test_a_cancelled_reply_is_added_to_the_messages():
    with scripted_engine(saying("Hi Ada.", "Ada!")).session() as session:
        stream = session.stream_chat("I am Ada.")
        for chunk in stream:
            if chunk["choices"][0]["delta"].get("content") == "i":
                stream.cancel()
        assert session.messages[-1]["content"] == "Hi"
        assert session.chat("Who am I?")["choices"][0]["message"]["content"] == "Ada!"


@pytest.mark.parametrize("reason", ["cancelled", "timeout"])
def test_a_turn_that_ends_before_its_first_token_is_not_added(reason):
    with scripted_engine(saying("Hi Ada.", "Ada!")).session() as session:
        session.chat("I am Ada.")
        before = list(session.messages)
        stream = session.stream_chat("Who am I?", timeout=1e-9 if reason == "timeout" else None)
        if reason == "cancelled":
            stream.cancel()
        assert stream.completion()["choices"][0]["finish_reason"] == reason
        assert session.messages == before
        assert session.chat("Who am I?")["choices"][0]["message"]["content"] == "Ada!"
        assert len(session.messages) == 4


def test_an_empty_answer_of_the_model_is_added():
    with scripted_engine(saying("")).session() as session:
        assert session.chat("Hello")["choices"][0]["finish_reason"] == "stop"
        assert [message["role"] for message in session.messages] == ["user", "assistant"]


def test_reset_clears_the_messages():
    with scripted_engine(saying("Hi.")).session() as session:
        session.chat("Hello")
        session.reset()
        assert session.messages == []
        assert session.chat("Hello")["choices"][0]["message"]["content"] == "Hi."


def test_closing_frees_the_cache_once():
    engine = scripted_engine(saying("Paris"))
    with engine.session() as session:
        next(session.generate("Where:"))
    assert [stream.closed for stream in engine.backend.streams] == [1]


def long_chat(overflow, **options):
    """A session of 60 tokens after two turns."""
    session = scripted_engine(saying(*["Yes."] * 9), context=60).session(overflow=overflow)
    session.messages.append({"role": "system", "content": "Be kind."})
    for _ in range(2):
        session.chat("0123456789", **options)
    return session


def test_a_full_context_is_an_error_and_leaves_the_conversation_as_it_is():
    with long_chat("stop") as session:
        before = list(session.messages)
        with pytest.raises(PromptError, match="context holds 60"):
            session.chat("0123456789")
        assert session.messages == before


def test_the_oldest_turns_are_dropped_when_the_session_shifts():
    with long_chat("shift", max_tokens=8) as session:
        assert session.chat("abcdefghij", max_tokens=8)["choices"][0]["message"]["content"] == "Yes."
        assert [message["content"] for message in session.messages] == [
            "Be kind.", "0123456789", "Yes.", "abcdefghij", "Yes.",
        ]  # fmt: skip
        with pytest.raises(PromptError, match="the prompt has"):
            session.chat("a" * 60)
        assert session.messages[-1]["content"] == "Yes."


def test_an_unknown_overflow_policy_is_an_error():
    engine = scripted_engine(saying("Hi."))
    with pytest.raises(InputError, match="unknown overflow policy 'slide'"):
        engine.session(overflow="slide")
    assert engine.backend.streams[-1].closed == 1


def test_a_session_hands_tools_and_variables_to_the_template():
    marks = """{# <tool_call> "name" "arguments" #}"""
    asks = "<|user|>{{ messages[-1].content }}<|assistant|>"
    names = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
    template = marks + "{{ bos_token }}" + names + "{{ mood }}" + asks
    engine, tool = scripted_engine(saying("Hi."), template=template), {"function": {"name": "f"}}
    with engine.session() as session:
        session.chat("Hello", tools=[tool], chat_template_kwargs={"mood": "glad"}, max_tokens=5)
        assert session.tokens[:8] == (BOS, *b"fglad", USER, *b"H")
    reply = engine.chat([{"role": "user", "content": "Hello"}], tools=[], chat_template_kwargs={"mood": "x"})
    assert reply["choices"][0]["message"]["content"] == "Hi."
