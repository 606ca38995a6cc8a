import functools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_vocabulary import BOS, EOS, HARD_STRINGS, USER, write_byte_level

from sprat.errors import PromptError
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
