"""The official ``openai`` client: what it sends back as history, and the less known of its options."""

import json

import pytest

openai = pytest.importorskip("openai", reason="needs openai: pip install openai")

QUESTION = [{"role": "user", "content": "What is 17 plus 25?"}]
SCHEMA = {
    "type": "object",
    "properties": {"device": {"enum": ["light", "fan"]}, "on": {"type": "boolean"}},
    "required": ["device", "on"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("switch", "dim")]
FLAT_TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="unused", max_retries=0) as client:
        yield client


def ask(client, **options):
    return client.chat.completions.create(
        **{"model": "student", "messages": QUESTION, "temperature": 0, "max_tokens": 60, **options}
    )


def respond(client, **options):
    return client.responses.create(**{"model": "student", "temperature": 0, "max_output_tokens": 200, **options})


def test_a_message_that_was_dumped_is_the_same_history_as_the_object(client):
    message = ask(client).choices[0].message
    assert None in message.model_dump().values()
    after = [ask(client, messages=[*QUESTION, sent, *QUESTION]) for sent in (message, message.model_dump())]
    assert after[0].choices[0].message.content == after[1].choices[0].message.content
    assert after[0].usage.prompt_tokens == after[1].usage.prompt_tokens


def test_dumped_items_are_the_same_history_as_the_objects(client):
    output = respond(client, input="What is 17 plus 25?").output
    sent = (output, [item.model_dump() for item in output])
    after = [respond(client, input=[*QUESTION, *items, *QUESTION]) for items in sent]
    assert after[0].output_text == after[1].output_text
    assert after[0].usage.input_tokens == after[1].usage.input_tokens


def test_a_field_that_is_null_is_not_given_and_a_field_that_is_unknown_is_refused(client):
    assert ask(client, extra_body={"functions": None, "of_next_year": None}).choices
    with pytest.raises(openai.BadRequestError, match="unknown field 'of_next_year'"):
        ask(client, extra_body={"of_next_year": 1})
    with pytest.raises(openai.BadRequestError, match=r"unknown field `audio` - at `\$.messages\[0\]`"):
        ask(client, messages=[{**QUESTION[0], "audio": {"id": "x"}}])


def test_a_default_of_null_stays_in_a_schema(client):
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"on": {"enum": [None]}}, "required": ["on"], "default": None}
    schema["additionalProperties"] = False
    asked = {"type": "json_schema", "json_schema": {"name": "nothing", "schema": schema}}
    content = ask(client, response_format=asked, max_tokens=200).choices[0].message.content
    assert json.loads(content)["on"] is None


def test_calls_that_were_dumped_are_taken_with_their_results(client):
    pytest.importorskip("llguidance")
    message = ask(client, tools=TOOLS, tool_choice="required", max_tokens=200).choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
    assert ask(client, messages=[*QUESTION, message.model_dump(), *results], tools=TOOLS).choices


def test_the_items_of_one_turn_are_one_message(client):
    call = {"type": "function_call", "name": "switch", "arguments": '{"device": "fan", "on": true}'}
    calls = [{**call, "call_id": str(number)} for number in range(2)]
    outputs = [{"type": "function_call_output", "call_id": str(number), "output": "done"} for number in range(2)]
    function = {"name": call["name"], "arguments": call["arguments"]}
    message = {
        "role": "assistant",
        "content": "Yes.",
        "tool_calls": [{"id": str(number), "type": "function", "function": function} for number in range(2)],
    }
    results = [{"role": "tool", "tool_call_id": str(number), "content": "done"} for number in range(2)]
    said = {"type": "message", "role": "assistant", "content": "Yes."}
    items = respond(client, input=[*QUESTION, said, *calls, *outputs], tools=FLAT_TOOLS)
    messages = ask(client, messages=[*QUESTION, message, *results], tools=TOOLS)
    assert items.usage.input_tokens == messages.usage.prompt_tokens


def test_another_models_refusal_is_part_of_the_history(client):
    as_text = ask(client, messages=[*QUESTION, {"role": "assistant", "content": "No."}, *QUESTION])
    for refusal in ({"content": [{"type": "refusal", "refusal": "No."}]}, {"content": None, "refusal": "No."}):
        found = ask(client, messages=[*QUESTION, {"role": "assistant", **refusal}, *QUESTION])
        assert found.usage.prompt_tokens == as_text.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="missing required field `text`"):
        ask(client, messages=[{"role": "user", "content": [{"type": "text"}]}])


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_called(client, mode):
    pytest.importorskip("llguidance")
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "dim"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    calls = ask(client, tools=TOOLS, tool_choice=choice, max_tokens=200).choices[0].message.tool_calls or []
    assert {call.function.name for call in calls} == ({"dim"} if mode == "required" else set())
    flat = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "dim"}]}
    output = respond(client, input="Turn on the fan", tools=FLAT_TOOLS, tool_choice=flat).output
    assert {item.name for item in output if item.type == "function_call"} <= {"dim"}


@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        ({"mode": "auto", "tools": [{"type": "function", "function": {"name": "dimm"}}]}, "did you mean 'dim'"),
        ({"mode": "all", "tools": [{"type": "function", "function": {"name": "dim"}}]}, "expected the mode"),
        ({"mode": "auto", "tools": []}, "expected the mode 'auto' or 'required' and tools"),
    ],
)
def test_allowed_tools_that_cannot_be_say_why(client, allowed, told):
    pytest.importorskip("llguidance")
    with pytest.raises(openai.BadRequestError, match=told):
        ask(client, tools=TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})


def test_a_tool_that_is_no_function_is_refused_by_its_type(client):
    with pytest.raises(openai.BadRequestError, match="tool 0 is of the type 'custom', expected 'function'"):
        ask(client, tools=[{"type": "custom", "custom": {"name": "x"}}])


def test_any_seed_of_openais_range_repeats_its_answer(client):
    for seed in (-1, -(1 << 63), (1 << 63) - 1):
        first, second = (ask(client, seed=seed, n=2, temperature=1.5, max_tokens=20).choices for _ in range(2))
        assert [choice.message for choice in first] == [choice.message for choice in second]


def test_a_response_has_log_probabilities_if_it_is_asked(client):
    response = respond(client, input="What is 17 plus 25?", top_logprobs=2)
    part = response.output[-1].content[0]
    assert "".join(entry.token for entry in part.logprobs).strip() == part.text
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
    included = respond(client, input="What is 17 plus 25?", include=["message.output_text.logprobs"])
    found = [entry.logprob for entry in included.output[-1].content[0].logprobs]
    assert found == pytest.approx([entry.logprob for entry in part.logprobs], abs=1e-3)
    events = list(respond(client, input="What is 17 plus 25?", top_logprobs=2, stream=True))
    streamed = [one for event in events if event.type == "response.output_text.delta" for one in event.logprobs]
    assert len(streamed) == len(part.logprobs)
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert [entry.token for entry in done.logprobs] == [entry.token for entry in streamed]


def test_an_effort_of_none_ends_reasoning_in_a_response(client):
    output = respond(client, input="What is 17 plus 25?", reasoning={"effort": "none"}).output
    assert [item.type for item in output] == ["message"]
    with pytest.raises(openai.BadRequestError, match="effort"):
        respond(client, input="x", reasoning={"effort": "much"})


@pytest.mark.parametrize("field", [{"conversation": "conv_1"}, {"prompt": {"id": "p"}}])
def test_what_openai_stores_is_refused_by_name(client, field):
    with pytest.raises(openai.BadRequestError, match=f"{next(iter(field))}: this server stores no"):
        respond(client, input="x", **field)


def test_options_without_effect_are_taken(client):
    assert respond(client, input="x", max_tool_calls=3).output
    assert list(respond(client, input="x", stream=True, stream_options={"include_obfuscation": False}))


def complete(client, **options):
    return client.completions.create(**{"model": "student", "temperature": 0, "max_tokens": 6, **options})


def test_a_completion_has_log_probabilities_if_it_is_asked(client):
    choice = complete(client, prompt="Turn on", logprobs=2).choices[0]
    found = choice.logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) == 6
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert top[token] == max(top.values()) == logprob  # greedy
    assert "".join(found.tokens).startswith(choice.text)
    assert found.text_offset[0] == 0
    chunks = list(complete(client, prompt="Turn on", logprobs=2, stream=True))
    streamed = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [each.tokens[0] for each in streamed] == found.tokens
    assert [each.text_offset[0] for each in streamed] == found.text_offset
    assert complete(client, prompt="Turn on").choices[0].logprobs is None


def test_a_completion_of_several_prompts_has_n_choices_of_each_also_in_a_stream(client):
    asked = {"prompt": ["Turn on", "What is"], "n": 2, "temperature": 1, "seed": 5, "best_of": 2}
    choices = complete(client, **asked).choices
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    assert choices[0].text != choices[1].text
    texts, usage = dict.fromkeys(range(4), ""), None
    for chunk in complete(client, **asked, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
        usage = chunk.usage or usage
    assert list(texts.values()) == [choice.text for choice in choices]
    assert usage.completion_tokens == 24
    with pytest.raises(openai.BadRequestError, match="best_of is 3, expected n"):
        complete(client, prompt="x", best_of=3)
