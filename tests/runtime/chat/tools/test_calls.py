"""Tool calls in answers: bound while they are generated, and read from the text, in every format."""

import json

import jsonschema
import numpy as np
import pytest
from scripted_model import ASSISTANT, EOS, TEMPLATE, ScriptedBackend, byte_tokenizer, random_logits, scripted_engine

from sprat.errors import InputError
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.chat.tools.formats import FALLBACK, FORMATS
from sprat.runtime.chat.tools.splitter import ToolCallSplitter
from sprat.runtime.engine import Engine

SWITCH = {
    "name": "switch",
    "parameters": {
        "type": "object",
        "properties": {"room": {"enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
        "required": ["room", "on"],
    },
}
CLOCK = {
    "name": "get_time",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": SWITCH}, {"type": "function", "function": CLOCK}]
QUESTION = [{"role": "user", "content": "Hi"}]
SPECIAL = ["<bos>", "<eos>", "<|user|>", "<|assistant|>"]
MARKS = [
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
]
VOCABULARY = [*SPECIAL, *MARKS]


def engine_of(logits_after, used):
    """An engine whose template is of the format ``used``; DeepSeek's marks are control tokens."""
    template = f"{{# {''.join(used.marks)} #}}{TEMPLATE}"
    backend = ScriptedBackend(logits_after, max_context=4000)
    backend.vocab_size = 256 + len(VOCABULARY)
    special = {"bos_token": "<bos>", "eos_token": "<eos>"}
    return Engine(backend, byte_tokenizer(VOCABULARY), template=ChatTemplate(template, special))


def writing(text):
    """Logits that write ``text`` in the last assistant turn; marks are their tokens."""
    tokenizer = byte_tokenizer(VOCABULARY)
    answer = [*tokenizer.encode(text, parse_special=True), EOS]

    def logits_after(tokens):
        logits = np.zeros(256 + len(VOCABULARY), np.float32)
        if ASSISTANT in tokens:
            n_answered = tokens[::-1].index(ASSISTANT)
            logits[answer[n_answered] if n_answered < len(answer) else EOS] = 50
        return logits

    return logits_after


def any_logits(tokens):
    logits = np.full(256 + len(VOCABULARY), -100, np.float32)
    logits[:260] = random_logits(tokens)
    return logits


def called(used, *calls):
    texts = [f"{used.before_name}{name}{used.after_name}{args}{used.after_arguments}" for name, args in calls]
    return f"{used.opening}{(used.between or '').join(texts)}{used.closing}"


@pytest.mark.parametrize("used", FORMATS, ids=lambda used: used.name)
class TestEveryFormat:
    def test_calls_are_read_and_text_before_them_is_content(self, used):
        calls = [("switch", '{"room": "hall", "on": true}'), ("get_time", '{"city": "Rome"}')]
        calls = calls[: 1 if used.between is None else 2]
        said = "" if used.at_start else "Sure."
        reply = engine_of(writing(said + called(used, *calls)), used).chat(QUESTION, tools=TOOLS)["choices"][0]
        found = [(call["function"]["name"], call["function"]["arguments"]) for call in reply["message"]["tool_calls"]]
        assert (found, reply["message"]["content"], reply["finish_reason"]) == (calls, said, "tool_calls")
        assert len({call["id"] for call in reply["message"]["tool_calls"]}) == len(calls)

    def test_arguments_are_bound_once_a_call_has_begun(self, used):
        wrong = called(used, ("switch", '{"room": "cellar", "on": 3, "x": 1}'))
        reply = engine_of(writing(wrong), used).chat(QUESTION, tools=TOOLS, max_tokens=150, seed=1)["choices"][0]
        arguments = json.loads(reply["message"]["tool_calls"][0]["function"]["arguments"])
        jsonschema.validate(arguments, SWITCH["parameters"])
        assert arguments.keys() == {"room", "on"}

    def test_an_answer_without_a_call_is_free(self, used):
        reply = engine_of(writing("It is noon < one."), used).chat(QUESTION, tools=TOOLS)["choices"][0]
        assert (reply["message"]["content"], reply["finish_reason"]) == ("It is noon < one.", "stop")
        assert "tool_calls" not in reply["message"]

    @pytest.mark.parametrize("parallel", [True, False])
    def test_a_required_call_is_made_whatever_the_model_says(self, used, parallel):
        for seed in range(3):
            reply = engine_of(any_logits, used).chat(
                QUESTION, tools=TOOLS, tool_choice="required", parallel_tool_calls=parallel, max_tokens=400, seed=seed
            )["choices"][0]
            calls = reply["message"]["tool_calls"]
            assert len(calls) == 1 or parallel
            for call in calls:
                (schema,) = (tool["parameters"] for tool in (SWITCH, CLOCK) if tool["name"] == call["function"]["name"])
                jsonschema.validate(json.loads(call["function"]["arguments"]), schema)

    def test_one_function_by_name(self, used):
        choice = {"type": "function", "function": {"name": "get_time"}}
        reply = engine_of(any_logits, used).chat(QUESTION, tools=TOOLS, tool_choice=choice, max_tokens=150, seed=3)
        calls = reply["choices"][0]["message"]["tool_calls"]
        assert {call["function"]["name"] for call in calls} == {"get_time"}

    def test_calls_do_not_depend_on_where_the_text_is_cut(self, used):
        calls = [("switch", '{"room": "}\\"{", "on": [{}]}')] * (1 if used.between is None else 2)
        text = called(used, *calls)
        for size in (1, 2, 3, 7, len(text)):
            splitter = ToolCallSplitter(used)
            parts = [splitter.feed(text[at : at + size]) for at in range(0, len(text), size)]
            found = [call["function"] for part in parts for call in part.calls]
            assert [(call["name"], call["arguments"]) for call in found] == calls
            assert "".join(part.content for part in parts) + splitter.flush().content == ""

    def test_a_call_that_is_cut_is_content(self, used):
        text = called(used, ("switch", '{"room": "hall", "on": true}')).partition("true}")[0] + "tru"
        splitter = ToolCallSplitter(used)
        part = splitter.feed(text)
        assert (part.content + splitter.flush().content, part.calls) == (text, [])


def test_chunks_have_each_call_once_with_its_index():
    text = called(FALLBACK, ("get_time", '{"city": "Rome"}'), ("get_time", '{"city": "Oslo"}'))
    chunks = list(engine_of(writing(text), FALLBACK).stream_chat(QUESTION, tools=TOOLS))
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["arguments"]) for call in deltas] == [
        (0, '{"city": "Rome"}'),
        (1, '{"city": "Oslo"}'),
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_no_choice_leaves_calls_as_text():
    text = called(FALLBACK, ("get_time", '{"city": "Rome"}'))
    reply = engine_of(writing(text), FALLBACK).chat(QUESTION, tools=TOOLS, tool_choice="none")["choices"][0]
    assert (reply["message"]["content"], reply["finish_reason"]) == (text, "stop")


def test_what_only_looks_like_a_call_stays_text():
    text = "<tool_caller> is how I would call it."
    reply = engine_of(writing(text), FALLBACK).chat(QUESTION, tools=TOOLS, max_tokens=60)["choices"][0]
    assert reply["message"]["content"] == text


def test_with_a_response_format_the_answer_is_one_or_the_other():
    asked = {"response_format": {"type": "json_object"}, "tools": TOOLS, "max_tokens": 200, "seed": 1}
    answer = engine_of(writing('{"a": 1}'), FALLBACK).chat(QUESTION, **asked)["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == ('{"a": 1}', "stop")
    calling = engine_of(writing('<tool_call>\n{"name": "switch"'), FALLBACK).chat(QUESTION, **asked)["choices"][0]
    assert calling["finish_reason"] == "tool_calls"


def test_a_schema_that_is_not_supported_is_an_error_before_anything_runs():
    tools = [{"name": "f", "parameters": {"properties": {"a": {"not": {}}}}}]
    with pytest.raises(InputError, match="uses 'not', which constrained answers do not support"):
        engine_of(any_logits, FALLBACK).chat(QUESTION, tools=tools)


def test_a_session_takes_the_results_of_tools():
    calls = called(FALLBACK, ("get_time", '{"city": "Rome"}'))
    engine = scripted_engine(
        lambda tokens: writing(calls if tokens.count(ASSISTANT) < 2 else "It is noon.")(tokens)[:260]
    )
    with engine.session() as session:
        (call,) = session.chat("When?", tools=TOOLS)["choices"][0]["message"]["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "12:00"}
        assert session.chat([result], tools=TOOLS)["choices"][0]["message"]["content"] == "It is noon."
        assert [message["role"] for message in session.messages] == ["user", "assistant", "tool", "assistant"]
