"""What Home Assistant's Ollama integration calls, with Ollama's own client, which it uses."""

import json

import httpx
import pytest
from http_server import running_server

from sprat.server.api.ollama import OllamaChat

ollama = pytest.importorskip("ollama", reason="needs ollama: pip install ollama")
# A connection of Ollama's client may be left to the garbage collector, which reports it in a later test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

QUESTION = [{"role": "user", "content": "What is 17 plus 25?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "switch",
        "description": "Switch a device.",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}
GREEDY = {"temperature": 0, "num_ctx": 8192, "num_predict": -1}


@pytest.fixture(scope="module")
def client(server):
    with ollama.Client(host=server.address) as client:
        yield client


def test_models_are_listed_with_their_sizes(client):
    (model,) = client.list().models
    assert model.model == "student:latest"
    assert model.size > 1e6
    assert "completion" in client.show("student:latest").capabilities


def test_a_chat_is_answered_whole_and_in_parts(client):
    for name in ("student", "student:latest"):
        reply = client.chat(model=name, messages=QUESTION, options=GREEDY, keep_alive="5m")
        assert (reply.message.content, reply.done_reason) == ("42", "stop")
        assert "017+025" in reply.message.thinking
        parts = list(client.chat(model=name, messages=QUESTION, options=GREEDY, stream=True, think=True))
        assert "".join(part.message.content for part in parts) == "42"
        assert [part.done for part in parts][-2:] == [False, True]
        assert parts[-1].eval_count == reply.eval_count > 0


def test_tokens_are_limited_as_ollama_says_it(client):
    reply = client.chat(model="student", messages=QUESTION, options={"num_predict": 3})
    assert (reply.eval_count, reply.done_reason) == (3, "length")


def test_a_tool_is_called_and_its_result_fed_back(client):
    pytest.importorskip("llguidance")
    messages = [{"role": "user", "content": "Turn on the kitchen light"}]
    client.chat(model="student", messages=messages, tools=[TOOL], options=GREEDY | {"num_predict": 50})
    call = {"function": {"name": "switch", "arguments": {"on": True}}}
    history = [*messages, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "done"}]
    reply = client.chat(model="student", messages=history, tools=[TOOL], options=GREEDY | {"num_predict": 50})
    assert reply.done


def test_a_format_binds_the_answer(client):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    reply = client.chat(model="student", messages=QUESTION, format=schema, options=GREEDY | {"num_predict": 100})
    assert set(json.loads(reply.message.content)) == {"n"}


def test_calls_of_a_model_are_told_as_ollama_tells_them():
    from sprat.server.api.ollama import _message

    call = {"id": "c", "type": "function", "function": {"name": "switch", "arguments": '{"on": true}'}}
    assert _message({"tool_calls": [call]})["tool_calls"] == [
        {"function": {"name": "switch", "arguments": {"on": True}}}
    ]


def test_without_a_message_a_model_is_loaded_and_unloaded(student):
    with running_server({"a": student}) as running, ollama.Client(host=running.address) as client:
        assert client.chat(model="a", messages=[]).done_reason == "load"
        assert running.engine() is not None
        client.chat(model="a", messages=[], keep_alive=0)
        running.wait_until(lambda: running.engine() is None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "text only"),
        ({"messages": [{"role": "user", "content": "x"}], "keep_alive": "5 parsecs"}, "keep_alive"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
    ],
)
def test_what_is_wrong_is_told(server, body, message):
    response = httpx.post(f"{server.address}/api/chat", json={"model": "student", **body})
    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"options": {"num_predict": "many"}}, "Expected `int`, got `str` - at `$.num_predict`"),
        ({"options": {"num_predict": 3.7}}, "Expected `int`, got `float`"),
        ({"options": {"temperature": "hot"}}, "temperature is 'hot'"),
        ({"options": {"presence_penalty": "much"}}, "presence_penalty is 'much'"),
        ({"keep_alive": "soon"}, "'5m' or '1h30m'"),
        ({"keep_alive": "nan"}, "'5m' or '1h30m'"),
        ({"keepalive": 5}, "did you mean 'keep_alive'?"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": "x"}]}]}, "Expected `object`, got `str`"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": None}]}]}, "Expected `object`, got `null`"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "Invalid enum value 'robot'"),
    ],
)
def test_what_cannot_be_meant_is_told(server, options, told):
    body = {"model": "student", "messages": QUESTION, "stream": False, **options}
    response = httpx.post(f"{server.address}/api/chat", json=body, timeout=60)
    assert (response.status_code, told in response.json()["error"]) == (400, True), response.text


def test_options_without_a_value_are_those_that_are_not_given(client):
    nothing = {"num_predict": None, "temperature": 0, "seed": None, "stop": None}
    for keep_alive in ("1h30m", "300", -1, "-1m", 300):
        reply = client.chat(model="student", messages=QUESTION, options=nothing, format="", keep_alive=keep_alive)
        assert reply.message.content == "42"


def test_penalties_reach_the_sampler():
    options = {
        "presence_penalty": 2.0,
        "frequency_penalty": 0.5,
        "repeat_penalty": 1.1,
        "typical_p": 0.9,
        "mirostat": 2,
    }
    asked = OllamaChat(model="student", options=options)
    assert asked.chat_options() == {name: value for name, value in options.items() if name != "mirostat"}
