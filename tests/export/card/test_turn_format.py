"""Formats are found in the templates that published models have, and only where they give the same prompts."""

from pathlib import Path

import pytest

from sprat.export.card.turn_format import Turn, TurnFormat, turn_format
from sprat.runtime.chat.template import ChatTemplate

CHAT = Path(__file__).parents[2] / "data" / "chat"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
FIXED = [
    "deepseek-r1-distill",
    "deepseek-r1",
    "deepseek-v2-chat",
    "deepseek-v3",
    "llama-3",
    "smollm2",
    "styles/deepseek-hybrid",
    "styles/gemma",
    "styles/glm",
    "styles/kimi",
    "styles/mistral",
    "styles/qwen3",
]


def template(name):
    return ChatTemplate((CHAT / f"{name}.jinja").read_text(encoding="utf-8"), TOKENS)


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_format_is_found(name):
    assert turn_format(template(name)) is not None


def test_the_parts_of_an_r1_distill():
    assert turn_format(template("deepseek-r1-distill")) == TurnFormat(
        start="<s>",
        system=Turn("", ""),
        user=Turn("<｜User｜>", ""),
        assistant=Turn("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        prompt="<｜Assistant｜><think>\n",
    )


def test_a_default_system_message_is_found():
    found = turn_format(template("smollm2"))
    assert found.default_system == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    messages = [{"role": "user", "content": "Hi"}]
    assert found.render(messages) == template("smollm2").render(messages)


def test_a_template_without_system_messages_has_none():
    assert turn_format(template("styles/gemma")).system is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}",  # the date
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}{% endfor %}",  # a number that counts
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",  # the contents are changed
        "{% for m in messages %}{{ m.content | trim }}{% if loop.first %}!{% endif %}{% endfor %}",  # the first differs
        "{{ messages | tojson }}",
        "{{ messages[-1].content }}",  # the history is dropped
        "nothing",
        "{{ raise_exception('no') }}",
        "{% for %}",
    ],
)
def test_other_templates_have_no_format(source):
    assert turn_format(ChatTemplate(source)) is None
