import dataclasses
import functools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_vocabulary import BOS, EOS, HARD_STRINGS, USER, write_byte_level

from sprat.errors import PromptError, TemplateError
from sprat.runtime.chat.prompt import chat_prompt
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.tokenizer.tokenizer import Tokenizer

DATA = Path(__file__).parents[2] / "data" / "chat"
PIECES = [BOS, EOS, USER, "<｜Assistant｜>", "<｜", "<", "User｜>", "｜>", "</think>", " ", "\n", "hi", "\ue000"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_file(write_byte_level(tmp_path_factory.mktemp("deepseek-v3"), "deepseek-v3"))


@functools.cache
def template(name):
    return ChatTemplate((DATA / f"{name}.jinja").read_text(encoding="utf-8"), {"bos_token": BOS, "eos_token": EOS})


def conversation(*contents):
    roles = ["user", "assistant"] * len(contents)
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


@pytest.mark.parametrize("name", ["deepseek-r1", "deepseek-r1-distill", "deepseek-v2-chat", "deepseek-v3", "smollm2"])
def test_messages_without_special_tokens_get_the_ids_of_the_rendered_text(tokenizer, name):
    for text in HARD_STRINGS:
        if "｜>" not in text:
            messages = conversation(text, "so", text)
            prompt = chat_prompt(template(name), tokenizer, messages)
            assert prompt.text == template(name).render(messages)
            assert prompt.tokens == tokenizer.encode(prompt.text, parse_special=True, add_bos=True), repr(text)


def test_a_word_may_span_template_and_message(tokenizer):
    prompt = chat_prompt(ChatTemplate("The q{{ messages[0].content }}n fox"), tokenizer, conversation("uick brow"))
    assert prompt.tokens == tokenizer.encode("The quick brown fox", add_bos=True)


def test_there_is_one_bos_whether_or_not_the_template_writes_it(tokenizer):
    for source in ("{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"):
        prompt = chat_prompt(ChatTemplate(source, {"bos_token": BOS}), tokenizer, conversation("hi"))
        assert prompt.tokens == [tokenizer.bos_id, *tokenizer.encode("hi")]


@given(contents=st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), min_size=1, max_size=3))
@settings(max_examples=40)
@pytest.mark.parametrize("name", ["deepseek-r1", "deepseek-v2-chat"])
def test_no_message_can_inject_a_special_token(tokenizer, name, contents):
    control_ids = {tokenizer.encode(text, parse_special=True)[0] for text in PIECES[:4]}

    def control_tokens(*contents):
        prompt = chat_prompt(template(name), tokenizer, conversation(*contents))
        assert prompt.text == template(name).render(conversation(*contents))
        return [token for token in prompt.tokens if token in control_ids]

    assert control_tokens(*contents) == control_tokens(*["x"] * len(contents))


def test_a_special_token_in_a_message_is_encoded_as_text(tokenizer):
    prompt = chat_prompt(template("deepseek-r1"), tokenizer, conversation(f"What is {USER}? {BOS}"))
    assert prompt.text == f"{BOS}{USER}What is {USER}? {BOS}<｜Assistant｜><think>\n"
    assert tokenizer.decode(prompt.tokens) == f"What is {USER}? {BOS}<think>\n"
    assert prompt.tokens.count(tokenizer.bos_id) == 1


def test_a_special_token_split_over_two_messages_stays_text(tokenizer):
    source = ChatTemplate("{% for m in messages %}{{ m.content | trim }}{% endfor %}{{ messages[0].name }}")
    messages = [{"role": "user", "content": "<｜Us ", "name": USER}, {"role": "user", "content": " er｜>"}]
    prompt = chat_prompt(source, tokenizer, messages)
    assert prompt.text == f"{USER}{USER}"
    assert tokenizer.decode(prompt.tokens) == f"{USER}{USER}"


def test_a_message_without_role_or_content_is_an_error(tokenizer):
    for message in ({"role": "user"}, {"role": "user", "content": None}, {"content": "hi"}):
        with pytest.raises(PromptError, match="message 0"):
            chat_prompt(template("smollm2"), tokenizer, [message])


def rendered_special(tokenizer, source, messages, **options):
    """The control tokens in the prompt, as text."""
    control = {index: text for text, index in tokenizer.vocabulary.control_ids().items()}
    prompt = chat_prompt(ChatTemplate(source, {"bos_token": BOS}), tokenizer, messages, options)
    return [control[token] for token in prompt.tokens if token in control][1:]


@pytest.mark.parametrize(
    "source",
    [
        "{% if messages[0].content.startswith(user) %}{{ messages[0].content.split(user)[-1].lstrip() }}{% endif %}",
        "{{ messages[0].content[user | length:] | trim }}",
        "{{ messages[0].content.replace(user, '') | trim }}",
        "{{ messages[0].content.removeprefix(user).strip() }}",
        "{{ messages[0].content.partition(user)[2] | trim }}",
        "{% if messages[0].content == user ~ ' hi' %}hi{% endif %}",
        "{{ 'hi' if user in messages[0].content and messages[0].content | length == 11 }}",
    ],
)
def test_a_template_sees_special_tokens_in_messages_as_they_are(tokenizer, source):
    source = f"{{% set user = '{USER}' %}}" + source
    assert chat_prompt(ChatTemplate(source), tokenizer, conversation(f"{USER} hi")).text == "hi"


@pytest.mark.parametrize(
    "source",
    [
        "{{ '<｜User｜>' + messages[0].content }}",
        "{{ '<｜User｜>' ~ messages[0].content }}",
        "{{ '<｜User｜>%s' % messages[0].content }}",
        "{{ '<｜User｜>%s' | format(messages[0].content) }}",
        "{{ '<｜User｜>{}'.format(messages[0].content) }}",
        "{{ ['<｜User｜>', messages[0].content] | join }}",
        "{{ ''.join(['<｜User｜>', messages[0].content]) }}",
        "{% set x %}<｜User｜>{{ messages[0].content }}{% endset %}{{ x }}",
        "{% macro m(c) %}<｜User｜>{{ c }}{% endmacro %}{{ m(messages[0].content) }}",
        "{% macro m() %}<｜User｜>{{ caller() }}{% endmacro %}{% call m() %}{{ messages[0].content }}{% endcall %}",
        "{{ ('<｜User｜>' ~ messages[0].content) | replace('x', 'y') | trim }}",
        "{{ ('<｜User｜>' ~ messages[0].content)[0:].strip() }}",
        "{{ ('a,<｜User｜>,' ~ messages[0].content).split(',')[1:] | join }}",
        "{% for c in '<｜User｜>' ~ messages[0].content %}{{ c }}{% endfor %}",
        "{{ ('<｜User｜>' ~ messages[0].content) | reverse | reverse }}",
        "{{ ('<｜User｜>' ~ messages[0].content) | indent(0) }}",
        "{{ [('<｜User｜>' ~ messages[0].content)] | map('trim') | first }}",
        "{{ ['<｜User｜>'] | first ~ messages[0].content | tojson }}",
        "{{ '<｜User｜>' }}{{ messages | map(attribute='content') | join }}",
        "{{ '<｜User｜>' ~ messages }}",
        "{{ '<｜User｜>' ~ messages[0].content.title() ~ messages[0].content.upper() }}",
        "{{ '<｜User｜>' ~ messages[0].content | wordwrap(200) ~ messages[0].content | truncate(9, true, '') }}",
        "{{ '<｜User｜>' ~ messages[0].content | e ~ messages[0].content | pprint | urlencode }}",
        "{{ '<｜User｜>' | safe + messages[0].content }}",
        "<｜{{ messages[0].role | title }}｜>{{ messages[0].content }}",
    ],
)
def test_the_templates_tokens_are_tokens_and_the_messages_are_text(tokenizer, source):
    for content in ("hi", USER, f"{BOS}{USER}{USER}x", "<｜Us", "<｜", "er｜>", "｜>"):
        assert rendered_special(tokenizer, source, conversation(content)) == [USER], content


@given(
    contents=st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), min_size=1, max_size=3),
    role=st.sampled_from(["user", "User", "｜User｜", "User｜><｜User", USER]),
)
@settings(max_examples=40)
def test_no_input_of_any_kind_can_inject_a_special_token(tokenizer, contents, role):
    source = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{{ m.name }}{% endfor %}"
        "{{ tools | tojson }}{{ tools }}{{ documents[0].text[1:] }}{{ extra.upper() }}{{ extra | e }}"
        "{% for key in tools[0] %}{{ key }}{% endfor %}"
    )
    messages = [{"role": role, "content": content, "name": content[::-1]} for content in contents]
    options = {
        "tools": [{content: content} for content in contents],
        "documents": [{"text": contents[0]}],
        "chat_template_kwargs": {"extra": contents[-1]},
    }
    assert rendered_special(tokenizer, source, messages, **options) == []


def test_all_that_transformers_hands_over_reaches_the_template(tokenizer):
    source = (
        "{{ tools }}{{ documents }}{{ thinking }}{{ pad_token }}{{ bos_token }}{{ messages[0].tool_calls is defined }}"
    )
    template = ChatTemplate(source, {"bos_token": "<s>", "pad_token": "<pad>"})
    messages = [{"role": "user", "content": "hi", "tool_calls": None}]
    assert chat_prompt(template, tokenizer, messages).text == "NoneNone<pad><s>False"
    options = {
        "tools": [{"a": 1}],
        "documents": [{"b": 2}],
        "chat_template_kwargs": {"thinking": True, "pad_token": "x"},
    }
    assert chat_prompt(template, tokenizer, messages, options).text == "[{'a': 1}][{'b': 2}]Truex<s>False"


def test_named_templates_are_chosen_as_in_transformers(tokenizer):
    named = ChatTemplate({"default": "plain", "tool_use": "tools", "rag": "documents"})
    messages = conversation("hi")
    assert chat_prompt(named, tokenizer, messages).text == "plain"
    assert chat_prompt(named, tokenizer, messages, {"tools": []}).text == "tools"
    assert chat_prompt(named, tokenizer, messages, {"chat_template": "rag", "tools": []}).text == "documents"
    with pytest.raises(
        TemplateError, match="no chat template called 'x'; pass the name of one: default, rag, tool_use"
    ):
        chat_prompt(named, tokenizer, messages, {"chat_template": "x"})
    with pytest.raises(TemplateError, match="called 'default'; pass the name of one: rag"):
        chat_prompt(ChatTemplate({"rag": "x"}), tokenizer, messages)


def test_a_variable_with_the_name_of_an_argument_is_an_error(tokenizer):
    with pytest.raises(TemplateError, match="is called messages; pass it as the argument"):
        chat_prompt(ChatTemplate("x"), tokenizer, conversation("hi"), {"chat_template_kwargs": {"messages": []}})


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "are a str"),
        ({"role": "user"}, "are a dict"),
        ([], "is empty"),
        (["hi"], "message 0"),
        ([1], "message 0"),
        (5, "are a int"),
        (b"hi", "are a bytes"),
        (iter([]), "are a list_iterator"),
    ],
)
def test_what_is_no_list_of_messages_is_an_error(tokenizer, messages, message):
    with pytest.raises(PromptError, match=message):
        chat_prompt(template("smollm2"), tokenizer, messages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": 5}, "tools is 5, expected a list of dicts"),
        ({"tools": "get_weather"}, "tools is 'get_weather', expected a list of dicts"),
        ({"tools": {"name": "x"}}, "tools is .*, expected a list of dicts"),
        ({"documents": ["a text"]}, "documents is .*, expected a list of dicts"),
        ({"chat_template_kwargs": 5}, "chat_template_kwargs is 5, expected a dict"),
        ({"chat_template_kwargs": {5: 1}}, "chat_template_kwargs is .*, expected a dict"),
    ],
)
def test_template_options_of_another_type_are_an_error(tokenizer, options, message):
    with pytest.raises(PromptError, match=message):
        chat_prompt(template("smollm2"), tokenizer, conversation("hi"), options)


def test_an_unknown_template_option_names_the_nearest(tokenizer):
    with pytest.raises(TypeError, match="unknown keyword 'tool'; did you mean 'tools'"):
        chat_prompt(template("smollm2"), tokenizer, conversation("hi"), {"tool": []})


def test_a_role_that_the_template_leaves_out_is_an_error(tokenizer):
    with pytest.raises(PromptError, match="message 1 has the role 'robot', which the chat template leaves out"):
        chat_prompt(template("deepseek-r1"), tokenizer, [*conversation("hi"), {"role": "robot", "content": "beep"}])
    source = ChatTemplate("{% for m in messages %}{{ m.role }}:{{ m.content | trim }};{% endfor %}")
    assert chat_prompt(source, tokenizer, [{"role": "robot", "content": " beep\n"}]).text == "robot:beep;"


def test_a_message_may_have_parts_or_tool_calls_instead_of_text(tokenizer):
    source = ChatTemplate("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}")
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ]
    assert chat_prompt(source, tokenizer, messages).text == "user:[{'type': 'text', 'text': 'hi'}];assistant:;"


def test_objects_of_a_client_library_are_messages(tokenizer):
    @dataclasses.dataclass
    class Turn:
        role: str
        content: str

    assert chat_prompt(ChatTemplate("{{ messages[0].content }}"), tokenizer, [Turn("user", "hi")]).text == "hi"


def test_texts_that_change_come_into_the_last_question_whatever_it_is(tokenizer):
    """Parts, an object of a client's library, no content: not into an earlier question, and not behind the last."""

    @dataclasses.dataclass
    class Turn:
        role: str
        content: str

    source = ChatTemplate("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}")
    parts, blank = [{"type": "text", "text": "hi"}], "\n\n"
    for last, rendered in (
        ({"role": "user", "content": parts}, f"user:{[{'type': 'text', 'text': 'Noon' + blank}, *parts]};"),
        (Turn("user", "hi"), f"user:Noon{blank}hi;"),
        ({"role": "user", "name": "Ada"}, "user:Noon;"),
    ):
        text = chat_prompt(source, tokenizer, [*conversation("first"), last], {"volatile": ["Noon"]}).text
        assert text == f"user:first;{rendered}"
    assert parts == [{"type": "text", "text": "hi"}]


def test_a_message_may_hold_every_private_use_character(tokenizer):
    content = "".join(map(chr, range(0xE000, 0xF900)))
    assert chat_prompt(template("smollm2"), tokenizer, conversation(content)).text.count(content) == 1


def test_an_empty_prompt_is_an_error():
    with pytest.raises(PromptError, match="makes an empty prompt"):
        chat_prompt(ChatTemplate(""), Tokenizer.from_gguf(metadata_without_bos()), conversation("hi"))


def metadata_without_bos():
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [chr(256 + index) for index in range(256)],
        "tokenizer.ggml.merges": [],
    }
