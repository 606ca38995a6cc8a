"""Values that no caller should pass: each is an error of sprat, or works; none is a bare exception of Python."""

import contextlib

import pytest
from scripted_model import random_logits, scripted_engine

from sprat.errors import PromptError, SpratError, TemplateError

MESSAGES = [{"role": "user", "content": "hi"}]
TOOL = {"name": "f"}
TEMPLATE = "{{ messages }}{{ tools }}{{ documents }}{{ thinking }}"


class Failing:
    """Like a client's record whose conversion fails."""

    def __getattr__(self, name):
        raise RuntimeError("no")


class Endless:
    """A record that converts to itself."""

    def model_dump(self):
        return self


HOSTILE = [
    *(5, -1, 1.5, True, 10**400, float("nan"), float("inf"), "x", "", "\ud800", b"x", bytearray(b"x")),
    *([5], [None], ["x"], [b"x"], [{}], [[]], {"a": 1}, {5: 1}, {None: 1}, {(1,): 2}, {"a": {1, 2}}, {1, 2}),
    *(object(), Failing(), Endless(), iter([1]), range(3), type, str.upper),
]
CALLS = {
    **{
        f"chat({name})": lambda engine, value, name=name: engine.chat(MESSAGES, max_tokens=1, **{name: value})
        for name in (
            *("tools", "documents", "chat_template", "chat_template_kwargs", "parallel_tool_calls", "n", "logprobs"),
            *("top_logprobs", "logit_bias", "min_tokens", "max_thinking_tokens", "response_format", "close_json"),
        )
    },
    **{
        f"response_format({name})": lambda engine, value, kind=kind, name=name: engine.chat(
            MESSAGES, max_tokens=1, response_format={"type": kind, name: value}
        )
        for kind, name in (
            ("json_schema", "schema"),
            ("regex", "regex"),
            ("grammar", "grammar"),
            ("choices", "choices"),
        )
    },
    "tool_choice": lambda engine, value: engine.chat(MESSAGES, max_tokens=1, tools=[TOOL], tool_choice=value),
    "name of a tool": lambda engine, value: engine.chat(MESSAGES, max_tokens=1, tools=[{"name": value}]),
    "parameters": lambda engine, value: engine.chat(MESSAGES, max_tokens=1, tools=[{"name": "f", "parameters": value}]),
    "tool_calls": lambda engine, value: engine.chat([*MESSAGES, MESSAGES[0] | {"tool_calls": value}], max_tokens=1),
    "options": lambda engine, value: engine.decide(MESSAGES, value),
    "option": lambda engine, value: engine.decide("a", ["b", value]),
    "prompt of a decision": lambda engine, value: engine.decide(value, ["a", "b"]),
    "embed": lambda engine, value: engine.embed(value),
    "messages": lambda engine, value: engine.chat(value, max_tokens=1),
    "role": lambda engine, value: engine.chat([{"role": value, "content": "a"}], max_tokens=1),
    "content": lambda engine, value: engine.chat([{"role": "user", "content": value}], max_tokens=1),
    "field of a message": lambda engine, value: engine.chat([MESSAGES[0] | {"name": value}], max_tokens=1),
    "session": lambda engine, value: engine.session().chat(value, max_tokens=1),
    "overflow": lambda engine, value: engine.session(overflow=value),
    "generate": lambda engine, value: engine.generate(value, max_tokens=1).text(),
    "suffix": lambda engine, value: engine.generate("a", suffix=value, max_tokens=1).text(),
    "encode": lambda engine, value: engine.encode(value),
    "tokenizer.encode": lambda engine, value: engine.tokenizer.encode(value),
    "tokenizer.decode": lambda engine, value: engine.tokenizer.decode(value),
    **{
        f"generate({name})": lambda engine, value, name=name: engine.generate(
            "a", **{"max_tokens": 2} | {name: value}
        ).text()
        for name in ("stop", "temperature", "top_k", "top_p", "seed", "repeat_penalty", "timeout", "max_tokens")
    },
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_hostile_value_is_an_error_of_sprat_or_works(call):
    with scripted_engine(random_logits, template=TEMPLATE) as engine:
        for value in HOSTILE:
            with contextlib.suppress(SpratError):
                call(engine, value)
        assert engine.generate("a", max_tokens=1).text()


def test_messages_name_what_was_found():
    with scripted_engine(random_logits, template=TEMPLATE) as engine:
        with pytest.raises(TemplateError, match="chat_template is a list"):
            engine.chat(MESSAGES, chat_template=["a"])
        with pytest.raises(TemplateError, match=r"a Failing in the messages fails"):
            engine.chat([MESSAGES[0] | {"name": Failing()}])
        with pytest.raises(PromptError, match="the text is a bytes, expected str"):
            engine.tokenizer.encode(b"x")
        with pytest.raises(PromptError, match="the ids are a str, expected integers"):
            engine.tokenizer.decode("x")
