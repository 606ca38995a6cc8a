import json

import pytest
import tokenizers
from tiny_vocabulary import HARD_STRINGS

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.pretokenizers import PRE_TOKENIZERS, get_pre_tokenizer, recognize


def words(row, text):
    document = {"version": "1.0", "added_tokens": [], "pre_tokenizer": row.json(), "model": {"type": "BPE"}}
    document["model"] |= {"vocab": {}, "merges": []}
    return [
        span for _, span in tokenizers.Tokenizer.from_str(json.dumps(document)).pre_tokenizer.pre_tokenize_str(text)
    ]


@pytest.mark.parametrize("row", PRE_TOKENIZERS, ids=lambda row: row.name)
def test_a_row_recognizes_its_own_entry(row):
    found = recognize(row.json())
    assert found is not None
    assert found.steps == row.steps


def test_rows_with_different_steps_cut_the_hard_strings_differently():
    rows = {row.steps and str(row.steps): row for row in PRE_TOKENIZERS}
    cuts = {str([words(row, text) for text in HARD_STRINGS]) for row in rows.values()}
    assert len(cuts) == len(rows) == len(PRE_TOKENIZERS) - 1  # qwen2 and deepseek-r1-qwen are one


# what the models' published tokenizer.json files do
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deepseek-llm", "Hello|  |1|2|3|4|5|,| it|'|s|\n|\n|Zoe| |日本|x|!"),
        ("deepseek-coder", "Hello|  |1|2|3|4|5|,| it|'|s|\n|\n|Zoe| |日本|x|!"),
        ("deepseek-v3", "Hello|  |123|45|,| it|'s|\n\n|Zoe| |日本|x|!"),
        ("qwen2", "Hello| | |1|2|3|4|5|,| it|'s|\n\n|Zoe| 日本x|!"),
        ("llama-bpe", "Hello| | |123|45|,| it|'s|\n\n|Zoe| 日本x|!"),
        ("smollm", "Hello|  |1|2|3|4|5|,| it|'s|\n|\n|Zoe| 日本x|!"),
        ("gpt-2", "Hello| | 12345|,| it|'s|\n|\n|Zoe| 日本x|!"),
    ],
)
def test_words_of_a_sentence(name, expected):
    text = "Hello  12345, it's\n\nZoe 日本x!"
    assert "|".join(text[slice(*span)] for span in words(get_pre_tokenizer(name), text)) == expected


def test_an_entry_is_recognized_in_another_spelling():
    entry = get_pre_tokenizer("smollm").json()
    entry["pretokenizers"] = [
        {"type": "Sequence", "pretokenizers": entry["pretokenizers"][:1]},
        entry["pretokenizers"][1],
    ]
    entry["pretokenizers"][1] = entry["pretokenizers"][1] | {"trim_offsets": False}
    found = recognize(entry)
    assert found is not None
    assert found.name == "smollm"


def test_an_entry_that_cuts_elsewhere_is_not_recognized():
    entry = get_pre_tokenizer("deepseek-v3").json()
    assert recognize({"type": "Sequence", "pretokenizers": entry["pretokenizers"][1:]}) is None
    assert recognize({"type": "Whitespace"}) is None
    assert recognize(None) is None


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(TokenizerError, match="did you mean 'deepseek-v3'"):
        get_pre_tokenizer("deepseek-v33")


def test_aliases_of_llama_cpp_are_known():
    assert get_pre_tokenizer("llama3") is get_pre_tokenizer("llama-bpe")
