"""Conversations that are longer than the context, and texts that change from call to call."""

import dataclasses

import numpy as np
import pytest
from scripted_model import ASSISTANT, EOS, ScriptedBackend, saying, scripted_engine

from sprat.errors import InputError, PromptError

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "0123456789"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "9876543210"},
    {"role": "assistant", "content": "No."},
    {"role": "user", "content": "abcdefghij"},
]


def summarising(tokens):
    """Answers a prompt that asks for a summary with S1, S2..., and any other with OK."""
    prompt = bytes(token for token in tokens if token < 256).decode()
    turn = tokens[len(tokens) - tokens[::-1].index(ASSISTANT) :]
    reply = [*(b"S" if "Summarise" in prompt else b"OK"), EOS, EOS][:3]
    logits = np.zeros(ScriptedBackend.vocab_size, np.float32)
    logits[reply[min(len(turn), 2)]] = 100
    return logits


def prompts(engine):
    """The text of each prompt that was processed whole."""
    for stream in engine.backend.streams:
        text = bytes(token for call in stream.processed for token in call if token < 256).decode()
        yield text.replace("<|system|>", "")


def test_a_conversation_that_is_too_long_is_an_error_by_default():
    with pytest.raises(PromptError, match="context holds 60"):
        scripted_engine(saying("x"), context=60).chat(TURNS)


def test_the_oldest_turns_of_a_conversation_are_dropped():
    engine = scripted_engine(summarising, context=60)
    assert engine.chat(TURNS, overflow="shift", max_tokens=5)["choices"][0]["message"]["content"] == "OK"
    (prompt,) = prompts(engine)
    assert prompt.startswith("Be kind.9876543210No.abcdefghij")


def kept_turns(engine):
    """Of each prompt, which turns it has; a turn is one letter, repeated."""
    return ["".join(sorted({*prompt} & {*"abcdefghijklmnop"})) for prompt in prompts(engine)]


def test_turns_are_dropped_some_at_a_time_so_that_the_next_ones_find_the_rest_in_the_cache():
    engine, messages = scripted_engine(summarising, context=160), []
    for letter in "abcdefghijklmnop":
        messages += [{"role": "user", "content": letter * 8}]
        engine.chat(messages, overflow="shift", max_tokens=5)
        messages += [{"role": "assistant", "content": "Yes."}]
    first = [turns[0] for turns in kept_turns(engine)]
    assert first == sorted(first)
    assert len({*first}) < len([letter for letter in first if letter != "a"]) / 2  # a few places, and not one for each
    assert all(len(turns) >= 4 for turns in kept_turns(engine)[4:])


def test_a_full_session_reuses_its_cache_in_most_turns():
    with scripted_engine(summarising, context=160).session(overflow="shift") as session:
        cached = []
        for letter in "abcdefghijklmnop":
            usage = session.chat(letter * 8, max_tokens=5)["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"] > 60)
    assert sum(cached[-8:]) >= 5


@pytest.mark.parametrize(("overflow", "context"), [("shift", 60), ("summarise", 400)])
def test_turns_that_are_objects_of_a_clients_library_are_dropped_alike(overflow, context):
    @dataclasses.dataclass
    class Turn:
        role: str
        content: str

    plain = [{**turn, "content": turn["content"] * (context // 40)} for turn in TURNS]
    found = []
    for turns in (plain, [Turn(**turn) for turn in plain]):
        engine = scripted_engine(summarising, context=context)
        engine.chat(turns, overflow=overflow, max_tokens=5)
        found.append(list(prompts(engine)))
    assert found[0] == found[1]
    assert plain[1]["content"] not in found[0][-1]


def test_nothing_is_dropped_from_what_fits():
    engine = scripted_engine(summarising, context=200)
    for overflow in ("shift", "summarise"):
        engine.chat(TURNS, overflow=overflow, max_tokens=5)
    assert all(prompt.startswith("Be kind.0123456789Yes.") for prompt in prompts(engine))


def test_the_oldest_turns_are_summarised():
    engine = scripted_engine(summarising, context=400)
    long = [{**message, "content": message["content"] * 10} for message in TURNS]
    assert engine.chat(long, overflow="summarise", max_tokens=5)["choices"][0]["message"]["content"] == "OK"
    asked, answered = prompts(engine)
    assert asked.startswith("Summarise this conversation")
    assert "\n\nuser: 0123456789" in asked
    assert "\nassistant: Yes." in asked
    assert answered.startswith(TURNS[0]["content"] * 10 + "Summary of the conversation so far:\nS")
    assert answered.endswith("abcdefghij" * 10 + "OK")


def test_a_session_keeps_its_summary_and_replaces_it():
    engine = scripted_engine(summarising, context=220)
    with engine.session(overflow="summarise") as session:
        session.messages.append({"role": "system", "content": "Be kind."})
        for _ in range(8):
            assert session.chat("0123456789" * 3, max_tokens=5)["choices"][0]["message"]["content"] == "OK"
        contents = [message["content"] for message in session.messages]
    assert contents[:2] == ["Be kind.", "Summary of the conversation so far:\nS"]
    assert sum(content.startswith("Summary") for content in contents) == 1
    assert len(contents) < 18


def test_an_empty_summary_is_left_out():
    engine = scripted_engine(saying(*[""] * 20), context=60)
    engine.chat(TURNS, overflow="summarise", max_tokens=5)
    assert not any("Summary of" in prompt for prompt in prompts(engine))


def test_the_last_turn_alone_must_fit():
    for overflow in ("shift", "summarise"):
        with pytest.raises(PromptError):
            scripted_engine(summarising, context=60).chat([{"role": "user", "content": "a" * 80}], overflow=overflow)


@pytest.mark.parametrize("overflow", ["slide", "", None, 5])
def test_an_unknown_policy_is_an_error(overflow):
    with pytest.raises(InputError, match="overflow"):
        scripted_engine(saying("x")).chat(TURNS, overflow=overflow)


@pytest.mark.parametrize("messages", [[], "hello", None, [5], {"role": "user", "content": "x"}])
@pytest.mark.parametrize("overflow", ["error", "shift", "summarise"])
def test_what_is_no_conversation_is_an_error_with_every_policy(messages, overflow):
    with pytest.raises(PromptError):
        scripted_engine(saying("x")).chat(messages, overflow=overflow)


# Texts that change


def test_texts_that_change_come_before_the_last_question_alone():
    engine = scripted_engine(summarising)
    for time in ("12:00", "12:05"):
        engine.chat(TURNS, volatile=[f"Time: {time}", "Light: on"], max_tokens=5)
    first, second = prompts(engine)
    assert first.endswith("No.Time: 12:00\n\nLight: on\n\nabcdefghijOK")
    assert first[: first.index("Time")] == second[: second.index("Time")]


def test_a_session_does_not_keep_texts_that_change():
    with scripted_engine(summarising).session() as session:
        session.chat("Hello", volatile=["Time: 12:00"], max_tokens=5)
        assert [message["content"] for message in session.messages] == ["Hello", "OK"]


def test_without_a_question_the_texts_are_one():
    engine = scripted_engine(summarising)
    engine.chat([{"role": "system", "content": "Be kind."}], volatile=["Time: 12:00"], max_tokens=5)
    assert next(prompts(engine)).startswith("Be kind.Time: 12:00")


@pytest.mark.parametrize("texts", ["12:00", [5], {"a": "b"}, 7])
def test_wrong_texts_are_an_error(texts):
    with pytest.raises(PromptError, match=r"volatile is .* expected a list of texts"):
        scripted_engine(saying("x")).chat(TURNS, volatile=texts)


def test_results_of_tools_stay_with_the_question_and_the_call():
    engine = scripted_engine(summarising, context=85)
    with engine.session(overflow="shift") as session:
        session.messages += [*TURNS, {"role": "assistant", "content": "call"}]
        reply = session.chat([{"role": "tool", "content": "result", "tool_call_id": "1"}], max_tokens=3)
        assert reply["choices"][0]["message"]["content"] == "OK"
        contents = [message["content"] for message in session.messages]
    assert contents == ["Be kind.", "abcdefghij", "call", "result", "OK"]
    (prompt,) = prompts(engine)
    assert prompt.startswith("Be kind.abcdefghijcall<tool_response>")
