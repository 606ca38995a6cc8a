"""Remake golden.json and expressions.json with transformers (5.24.0 made the stored files).

The templates beside this file are those that models were published with (chat_template in tokenizer_config.json).
Those in styles/ are in the manner of other models, and use what the first do not: macros, tools,
documents, variables, named groups. expressions.txt has one template a line: every filter, method, test and operator.
"""

import json
from pathlib import Path

import jinja2
import tokenizers
import transformers

HERE = Path(__file__).parent
CALL = {"type": "function", "function": {"name": "get_time", "arguments": '{"city": "Paris"}'}}
PARSED_CALL = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "get_time", "arguments": {"city": "Orléans"}},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": 'The time <in> a "city".',
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zone": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CONVERSATIONS = {
    "one question": [{"role": "user", "content": "Hi  there\n"}],
    "a thought in the history": [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n4"},
        {"role": "user", "content": " And <b>3+3</b>? 日本語 👩‍👩‍👧 "},
    ],
    "a tool": [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "noon"},
    ],
    "reasoning apart": [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", "reasoning_content": "Easy."},
        {"role": "user", "content": "3+3?"},
    ],
    "reasoning under an older name": [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", "thinking": "Easy."},
    ],
    "a tool in the middle": [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [PARSED_CALL]},
        {"role": "tool", "content": "noon", "tool_call_id": "call12345", "name": "get_time"},
        {"role": "assistant", "content": "It is noon."},
        {"role": "user", "content": "Thanks!"},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " you"}]}],
}
PUBLISHED = ("one question", "a thought in the history", "a tool")
VARIABLES = [
    {},
    {"tools": [TOOL]},
    {"documents": [{"title": "A", "text": "x <y>\nz"}]},
    {"thinking": True, "enable_thinking": True},
    {"thinking": False, "enable_thinking": False, "tools": [TOOL], "date_string": "1 Jan"},
]
TAKES_TOOLS = {"deepseek-v3", "deepseek-r1", "deepseek-r1-distill"}


def cases() -> list[dict]:
    """Template, conversation and variables of each case."""
    published = [
        {"template": path.stem, "conversation": name, "add_generation_prompt": asked, "variables": {}}
        for path in sorted(HERE.glob("*.jinja"))
        for name in PUBLISHED
        if name != "a tool" or path.stem in TAKES_TOOLS
        for asked in (True, False)
    ]
    styles = [
        {
            "template": f"styles/{path.stem}",
            "conversation": name,
            "add_generation_prompt": "documents" not in variables,
            "variables": variables,
        }
        for path in sorted((HERE / "styles").glob("*.jinja"))
        for name in CONVERSATIONS
        for variables in VARIABLES
    ]
    return published + styles


def render(source: str, messages: list[dict], *, asked: bool, variables: dict) -> str | None:
    """What transformers renders; ``None`` where it raises."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<B>": 0, "<E>": 1}, unk_token="<B>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<B>", eos_token="<E>")
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=asked, **variables
        )
    except (jinja2.TemplateError, TypeError, ValueError):
        return None


def rendered(case: dict) -> dict:
    """``case`` with what transformers renders."""
    source = (HERE / f"{case['template']}.jinja").read_text()
    messages = CONVERSATIONS[case["conversation"]]
    text = render(source, messages, asked=case["add_generation_prompt"], variables=case["variables"])
    return case | {"rendered": text}


def write(name: str, records: list[dict]) -> None:
    """Write the conversations, and ``records`` with one on each line."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    conversations = json.dumps(CONVERSATIONS, ensure_ascii=False)
    (HERE / name).write_text(f'{{"conversations": {conversations},\n"cases": [\n{lines}\n]}}\n')


def main() -> None:
    write("golden.json", [rendered(case) for case in cases()])
    expressions = [
        {
            "source": source,
            "conversation": name,
            "rendered": render(source, CONVERSATIONS[name], asked=True, variables={}),
        }
        for source in (HERE / "expressions.txt").read_text().splitlines()
        for name in ("one question", "a thought in the history")
    ]
    write("expressions.json", expressions)


if __name__ == "__main__":
    main()
