"""Remake golden.json: the templates beside this file, rendered by transformers (5.23.0 made the stored file).

The templates are those that the models were published with (``chat_template`` in tokenizer_config.json).
"""

import json
from pathlib import Path

import tokenizers
import transformers

HERE = Path(__file__).parent
CALL = {"type": "function", "function": {"name": "get_time", "arguments": '{"city": "Paris"}'}}
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
}
TAKES_TOOLS = {"deepseek-v3", "deepseek-r1", "deepseek-r1-distill"}


def main() -> None:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<B>": 0, "<E>": 1}, unk_token="<B>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<B>", eos_token="<E>")
    golden = [
        {
            "template": path.stem,
            "conversation": name,
            "messages": messages,
            "add_generation_prompt": asked,
            "rendered": tokenizer.apply_chat_template(
                messages, chat_template=path.read_text(), tokenize=False, add_generation_prompt=asked
            ),
        }
        for path in sorted(HERE.glob("*.jinja"))
        for name, messages in CONVERSATIONS.items()
        if name != "a tool" or path.stem in TAKES_TOOLS
        for asked in (True, False)
    ]
    (HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
