"""Random conversations, tools and variables, rendered by sprat and by transformers; skipped where that is missing."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.errors import TemplateError
from sprat.runtime.chat.template import ChatTemplate

transformers = pytest.importorskip("transformers", minversion="5.0")
tokenizers = pytest.importorskip("tokenizers")
jinja2 = pytest.importorskip("jinja2")

DATA = Path(__file__).parents[2] / "data" / "chat"
TEMPLATES = sorted(DATA.rglob("*.jinja"))

TEXTS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "\n", " ", "a", "Ä", "<b>", "👍", '"', "\\", "{{ x }}", "<|im_end|>", "\r\n"]
    ),
    max_size=6,
).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.just("call12345"),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": TEXTS, "arguments": st.dictionaries(TEXTS, JSON, max_size=2) | TEXTS}
            ),
        }
    ),
    max_size=2,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
            "content": TEXTS | st.none() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS})),
        },
        optional={
            "reasoning_content": TEXTS,
            "thinking": TEXTS,
            "name": TEXTS,
            "tool_calls": CALLS,
            "tool_call_id": st.just("call12345"),
        },
    ),
    min_size=1,
    max_size=4,
)
TOOLS = st.lists(
    st.dictionaries(TEXTS, JSON) | st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": TEXTS})})
)
VARIABLES = st.fixed_dictionaries(
    {},
    optional={
        "tools": TOOLS,
        "documents": st.lists(st.dictionaries(TEXTS, TEXTS, max_size=2), max_size=2),
        "thinking": st.booleans(),
        "enable_thinking": st.booleans(),
        "date_string": TEXTS,
    },
)


@pytest.fixture(scope="module")
def tokenizer():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<B>": 0, "<E>": 1}, unk_token="<B>"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<B>", eos_token="<E>")


@pytest.mark.slow
@pytest.mark.parametrize("path", TEMPLATES, ids=[path.stem for path in TEMPLATES])
@given(messages=MESSAGES, variables=VARIABLES, asked=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_conversation_renders_as_in_transformers(tokenizer, path, messages, variables, asked):
    source = path.read_text(encoding="utf-8")
    try:
        expected = tokenizer.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=asked, **variables
        )
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        expected = None
    template = ChatTemplate(source, {"bos_token": "<B>", "eos_token": "<E>"})
    try:
        found = template.render(messages, add_generation_prompt=asked, **variables)
    except TemplateError:
        found = None
    assert found == expected
