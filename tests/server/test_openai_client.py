"""The official ``openai`` client against the server: what its quick start and its reference do."""

import asyncio
import json

import pytest

import sprat

openai = pytest.importorskip("openai", reason="needs openai: pip install openai")

QUESTION = [{"role": "user", "content": "What is 17 plus 25?"}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def engine(student):
    with sprat.load(student) as engine:
        yield engine


@pytest.fixture(scope="module")
def reply(engine):
    return engine.chat(QUESTION, temperature=0)["choices"][0]["message"]


def ask(client, **options):
    return client.chat.completions.create(**{"model": "student", "messages": QUESTION, "temperature": 0, **options})


def test_the_quick_start_works_unchanged(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.address}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    with openai.OpenAI() as client:
        response = client.responses.create(model="gpt-5.2", input="What is 17 plus 25?")
    assert response.output_text == "42"
    assert response.model == "student"


def test_a_chat_is_the_engines(client, reply):
    completion = ask(client)
    choice = completion.choices[0]
    assert (choice.message.content, choice.message.reasoning_content) == (reply["content"], reply["reasoning_content"])
    assert (choice.finish_reason, completion.model, completion.object) == ("stop", "student", "chat.completion")
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


def test_a_stream_joins_to_the_whole_reply(client, reply):
    chunks = list(ask(client, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == reply["content"]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == reply["reasoning_content"]
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_the_usage_if_it_is_asked_for(client):
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks)


def test_the_async_client_streams_several_answers_at_a_time(server, reply):
    async def text(client):
        stream = await ask(client, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def texts():
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="unused") as client:
            return await asyncio.gather(*(text(client) for _ in range(5)))

    assert asyncio.run(texts()) == [reply["content"]] * 5


def test_content_in_parts_a_developer_message_and_stop(client):
    parts = [{"type": "text", "text": "What is 17 "}, {"type": "text", "text": "plus 25?"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert ask(client, messages=messages, stop=["\n"]).choices[0].finish_reason == "stop"


def test_max_tokens_cuts_an_answer_under_both_names(client):
    for name in ("max_tokens", "max_completion_tokens"):
        completion = ask(client, **{name: 3})
        assert (completion.choices[0].finish_reason, completion.usage.completion_tokens) == ("length", 3)


def test_a_completion_continues_the_prompt(client, engine):
    text = engine.generate("Turn on", max_tokens=16, temperature=0).text()
    completion = client.completions.create(model="student", prompt="Turn on", temperature=0)
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == (text, "length")
    pieces = client.completions.create(model="student", prompt="Turn on", temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == text


def test_a_completion_takes_several_prompts_and_token_ids(client, engine):
    tokens = engine.encode("Turn on")
    completion = client.completions.create(model="student", prompt=[tokens, tokens], temperature=0, max_tokens=4)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.choices[0].text == completion.choices[1].text
    assert completion.usage.completion_tokens == 8
    assert 0 < completion.usage.prompt_tokens_details.cached_tokens < completion.usage.prompt_tokens


def test_a_response_has_the_reasoning_as_an_item_of_its_own(client, reply):
    response = client.responses.create(model="student", input="What is 17 plus 25?", temperature=0)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text == reply["reasoning_content"]
    assert (response.output_text, response.status) == (reply["content"], "completed")
    assert response.usage.output_tokens_details.reasoning_tokens > 0


def test_a_streamed_response_accumulates_to_the_whole_one(client, reply):
    with client.responses.stream(model="student", input="What is 17 plus 25?", temperature=0) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == reply["content"]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"


def test_a_response_that_is_cut_is_incomplete(client):
    response = client.responses.create(model="student", input="What is 17 plus 25?", max_output_tokens=3)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_responses_own_items_are_the_next_input(client):
    first = client.responses.create(model="student", input="What is 17 plus 25?", temperature=0)
    items = [{"role": "user", "content": "What is 17 plus 25?"}, *first.output, {"role": "user", "content": "Thanks"}]
    response = client.responses.create(model="student", input=items, instructions="Be brief.", temperature=0)
    assert response.usage.input_tokens > first.usage.input_tokens


def test_models_are_listed_and_described(client):
    assert [model.id for model in client.models.list()] == ["student"]
    assert client.models.retrieve("student").owned_by == "sprat"
    with pytest.raises(openai.NotFoundError, match="'other' does not exist"):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"messages": []}, None),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"extra_body": {"top_kk": 3}}, "top_kk"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_an_invalid_request_is_a_400_that_names_the_field(client, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **options)
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)


def test_a_prompt_beyond_the_context_is_a_400_also_in_a_stream(client):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="tokens"):
            ask(client, stream=stream, messages=[{"role": "user", "content": "word " * 9000}])


def test_json_that_is_nested_too_deeply_is_a_400(client):
    content = b'{"model": "m", "messages": [], "response_format": ' + b'{"a":' * 100_000
    with pytest.raises(openai.BadRequestError, match="nested too deeply"):
        client.post("/chat/completions", body=None, content=content, cast_to=object)


def test_a_picture_is_refused_as_what_the_model_does_not_read(client):
    for part in ({"type": "image_url", "image_url": {"url": "x"}}, {"image_url": {"url": "x"}, "type": "image_url"}):
        with pytest.raises(openai.BadRequestError, match="reads text only"):
            ask(client, messages=[{"role": "user", "content": [part]}])


@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/completions", "/embeddings"])
def test_a_request_that_names_no_model_gets_the_only_one(client, path):
    asked = {"/chat/completions": {"messages": QUESTION}, "/completions": {"prompt": "x"}}.get(path, {"input": "x"})
    assert client.post(path, body=asked, cast_to=object)["model"] == "student"


def test_hints_for_openais_models_change_nothing_but_an_effort_of_none_ends_reasoning(client, reply):
    hints = {"verbosity": "low", "prediction": {"type": "content", "content": "42"}, "modalities": ["text"]}
    hinted = ask(client, reasoning_effort="low", **hints).choices[0].message
    assert (hinted.content, hinted.reasoning_content) == (reply["content"], reply["reasoning_content"])
    at_once = ask(client, reasoning_effort="none").choices[0].message
    assert at_once.content
    assert not getattr(at_once, "reasoning_content", None)


def test_what_needs_stored_responses_is_refused(client):
    with pytest.raises(openai.BadRequestError, match="stores no responses"):
        client.responses.create(model="student", input="x", previous_response_id="resp_1")


def test_no_json_and_an_unknown_path_have_openais_error_object(client):
    with pytest.raises(openai.BadRequestError, match="malformed"):
        client.post("/chat/completions", body=None, content=b"{x", cast_to=object)
    with pytest.raises(openai.NotFoundError) as caught:
        client.get("/nothing", cast_to=object)
    assert caught.value.body["type"] == "invalid_request_error"
    assert "there is no GET /v1/nothing; /openapi.json lists" in caught.value.message
    with pytest.raises(openai.APIStatusError, match="there is no GET /v1/chat/completions") as caught:
        client.get("/chat/completions", cast_to=object)
    assert (caught.value.status_code, caught.value.response.headers["allow"]) == (405, "POST")


SCHEMA = {
    "type": "object",
    "properties": {"device": {"enum": ["light", "fan"]}, "on": {"type": "boolean"}},
    "required": ["device", "on"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "switch", "description": "Switch a device.", "parameters": SCHEMA},
}
SENTENCE = [{"role": "user", "content": "Turn on the kitchen light"}]


def test_an_answer_has_the_shape_of_the_schema_it_was_asked_for(client):
    pytest.importorskip("llguidance")
    asked = {"type": "json_schema", "json_schema": {"name": "command", "schema": SCHEMA, "strict": True}}
    content = ask(client, messages=SENTENCE, response_format=asked, max_tokens=100).choices[0].message.content
    assert set(json.loads(content)) == {"device", "on"}
    text = {"format": {"type": "json_schema", "name": "command", "schema": SCHEMA}}
    response = client.responses.create(model="student", input=SENTENCE[0]["content"], text=text)
    assert set(json.loads(response.output_text)) == {"device", "on"}


def test_a_model_of_pydantic_is_parsed(client):
    pytest.importorskip("llguidance")
    from typing import Literal

    from pydantic import BaseModel

    class Command(BaseModel):
        device: Literal["light", "fan"]
        on: bool

    completion = client.chat.completions.parse(model="student", messages=SENTENCE, response_format=Command)
    assert isinstance(completion.choices[0].message.parsed, Command)


def test_a_tool_is_called_and_its_result_fed_back(client):
    pytest.importorskip("llguidance")
    options = {"messages": SENTENCE, "tools": [TOOL], "tool_choice": "required", "max_tokens": 200}
    choice = ask(client, **options).choices[0]
    (call, *_) = choice.message.tool_calls
    assert (choice.finish_reason, call.function.name) == ("tool_calls", "switch")
    assert set(json.loads(call.function.arguments)) == {"device", "on"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    history = [*SENTENCE, choice.message, result]
    assert ask(client, messages=history, tools=[TOOL], max_tokens=20).choices[0].message.role == "assistant"
    deltas = [chunk.choices[0].delta for chunk in ask(client, stream=True, **options)]
    streamed = [call for delta in deltas for call in delta.tool_calls or []]
    assert streamed[0].function.arguments == call.function.arguments


def test_a_response_calls_a_function_and_takes_its_output(client):
    pytest.importorskip("llguidance")
    tool = {"type": "function", **TOOL["function"]}
    options = {"model": "student", "tools": [tool], "tool_choice": "required", "temperature": 0}
    question = {"role": "user", "content": SENTENCE[0]["content"]}
    with client.responses.stream(input=[question], **options) as stream:
        kinds = {event.type for event in stream}
        response = stream.get_final_response()
    call = next(item for item in response.output if item.type == "function_call")
    assert set(json.loads(call.arguments)) == {"device", "on"}
    assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    after = client.responses.create(model="student", input=[question, *response.output, output], tools=[tool])
    assert after.status in {"completed", "incomplete"}
    with pytest.raises(openai.BadRequestError, match="'web_search' is not offered"):
        client.responses.create(model="student", input="x", tools=[{"type": "web_search"}])


def test_log_probabilities_and_several_replies(client):
    completion = ask(client, logprobs=True, top_logprobs=2, n=2, seed=1, temperature=1)
    assert [choice.index for choice in completion.choices] == [0, 1]
    first = completion.choices[0].logprobs.content[0]
    assert first.logprob <= 0
    assert len(first.top_logprobs) == 2
    *_, last = ask(client, n=2, stream=True, stream_options={"include_usage": True})
    assert last.usage.completion_tokens > completion.usage.prompt_tokens


def test_sampling_that_openai_has_is_passed_on(client):
    options = {"presence_penalty": 1, "frequency_penalty": 1, "logit_bias": {"5": -100}, "seed": 3}
    extra = {"min_p": 0.1, "top_k": 3, "typical_p": 0.9, "min_tokens": 2, "max_thinking_tokens": 3}
    completion = ask(client, temperature=1, extra_body=extra, **options)
    assert len(completion.choices[0].message.reasoning_content) < 20


def test_embeddings_are_the_engines(client, engine):
    texts = ["lights off in the kitchen", "What is 17 plus 25?"]
    expected = engine.embed(texts)
    found = client.embeddings.create(model="student", input=texts)  # the client asks for base64
    assert [item.index for item in found.data] == [0, 1]
    for item, vector in zip(found.data, expected, strict=True):
        assert item.embedding == pytest.approx(vector.tolist(), abs=1e-6)
    plain = client.embeddings.create(
        model="student", input=texts[0], encoding_format="float", dimensions=len(expected[0])
    )
    assert plain.data[0].embedding == pytest.approx(expected[0].tolist(), abs=1e-6)
    tokens = engine.encode(texts[0])
    by_tokens = client.embeddings.create(model="student", input=[tokens, tokens])
    assert by_tokens.data[1].embedding == pytest.approx(expected[0].tolist(), abs=1e-6)
    assert by_tokens.usage.prompt_tokens == by_tokens.usage.total_tokens == 2 * len(tokens)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"input": []}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": ["x", 5]}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": [10**9]}, None),
        ({"input": "x " * 20000}, None),
        ({"input": "x", "dimensions": 3}, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "extra_body": {"truncate": True}}, "truncate"),
    ],
)
def test_embeddings_that_cannot_be_say_why(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(**{"model": "student", **options})
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperatur": 1}, "did you mean 'temperature'?"),
        ({"max_token": 5}, "did you mean 'max_tokens'?"),
        ({"respone_format": {}}, "did you mean 'response_format'?"),
        ({"top_logprobs": 2}, "pass logprobs=True too"),
        ({"close_json": True}, "there is none; pass one"),
        (
            {"min_tokens": 9, "max_tokens": 3},
            "min_tokens is 9, expected an integer of at least 0 and at most max_tokens",
        ),
        ({"xtc_probability": 1.5}, "Expected `float` <= 1.0"),
    ],
)
def test_options_that_cannot_be_meant_say_what_could(client, options, told):
    with pytest.raises(openai.BadRequestError, match=r"invalid|logprobs|close_json") as refused:
        ask(client, extra_body=options)
    assert told in refused.value.message


def test_samplers_that_openai_lacks_go_beside_its_own(client):
    sampled = {"xtc_probability": 0.5, "xtc_threshold": 0.1, "top_n_sigma": 1.0, "typical_p": 0.9}
    assert ask(client, extra_body=sampled, seed=1, temperature=1).choices[0].message.content
