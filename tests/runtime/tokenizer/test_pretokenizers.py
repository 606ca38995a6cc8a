import json

import pytest
import tokenizers
from tiny_vocabulary import HARD_STRINGS

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.pretokenizers import PRE_TOKENIZERS, get_pre_tokenizer, recognize


def split(pre_tokenizer, text):
    document = {"version": "1.0", "added_tokens": [], "pre_tokenizer": pre_tokenizer.json(), "model": {"type": "BPE"}}
    document["model"] |= {"vocab": {}, "merges": []}
    return [
        span for _, span in tokenizers.Tokenizer.from_str(json.dumps(document)).pre_tokenizer.pre_tokenize_str(text)
    ]


@pytest.mark.parametrize("known", PRE_TOKENIZERS, ids=lambda known: known.name)
def test_each_pre_tokenizer_is_recognized_by_its_json(known):
    found = recognize(known.json(), ignore_merges=known.ignore_merges)
    assert found is not None
    assert (found.steps, found.ignore_merges) == (known.steps, known.ignore_merges)


def test_pre_tokenizers_with_different_steps_split_the_hard_strings_differently():
    by_steps = {str(known.steps): known for known in PRE_TOKENIZERS}
    splits = {str([split(known, text) for text in HARD_STRINGS]) for known in by_steps.values()}
    # deepseek-r1-qwen has the steps of qwen2, gigachat those of gpt-2, kanana2 those of gpt-4o, glm4 those of llama-bpe
    assert len(splits) == len(by_steps) == len(PRE_TOKENIZERS) - 4


# the results of the models' published tokenizer.json files
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
def test_words_equal_those_of_the_published_tokenizers(name, expected):
    text = "Hello  12345, it's\n\nZoe 日本x!"
    assert "|".join(text[slice(*span)] for span in split(get_pre_tokenizer(name), text)) == expected


def test_an_equivalent_entry_is_recognized():
    entry = get_pre_tokenizer("smollm").json()
    entry["pretokenizers"] = [
        {"type": "Sequence", "pretokenizers": entry["pretokenizers"][:1]},
        entry["pretokenizers"][1],
    ]
    entry["pretokenizers"][1] = entry["pretokenizers"][1] | {"trim_offsets": False}
    found = recognize(entry)
    assert found is not None
    assert found.name == "smollm"


@pytest.mark.parametrize("name", ["qwen2", "llama-bpe", "gpt-4o", "kimi-k2"])
def test_keeping_the_matches_is_the_same_as_splitting_at_them(name):
    entry = get_pre_tokenizer(name).json()
    entry["pretokenizers"][0] = entry["pretokenizers"][0] | {"behavior": "Removed", "invert": True}
    found = recognize(entry)
    assert found is not None
    assert found.steps == get_pre_tokenizer(name).steps


# the published regular expressions, run by tiktoken's own engine
PUBLISHED = {
    "gpt-4o": "|".join([
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
    ]),
    "kimi-k2": "|".join([
        r"[\p{Han}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_words_equal_those_of_tiktoken(name):
    tiktoken = pytest.importorskip("tiktoken")
    for text in HARD_STRINGS:
        words = {text[slice(*span)].encode() for span in split(get_pre_tokenizer(name), text)}
        bytes_ = {bytes([byte]): byte for byte in range(256)}
        ranks = bytes_ | {word: 256 + rank for rank, word in enumerate(sorted(words - {*bytes_}))}
        encoding = tiktoken.Encoding(name, pat_str=PUBLISHED[name], mergeable_ranks=ranks, special_tokens={})
        ids = encoding.encode(text, disallowed_special=())
        expected = [text[slice(*span)].encode() for span in split(get_pre_tokenizer(name), text)]
        assert [encoding.decode_single_token_bytes(index) for index in ids] == expected, repr(text)


def test_an_entry_that_splits_differently_is_not_recognized():
    entry = get_pre_tokenizer("deepseek-v3").json()
    assert recognize({"type": "Sequence", "pretokenizers": entry["pretokenizers"][1:]}) is None
    assert recognize({"type": "Whitespace"}) is None
    assert recognize(None) is None


def test_the_error_for_an_unknown_name_proposes_the_nearest():
    with pytest.raises(TokenizerError, match="did you mean 'deepseek-v3'"):
        get_pre_tokenizer("deepseek-v33")


def test_aliases_of_llama_cpp_are_known():
    assert get_pre_tokenizer("llama3") is get_pre_tokenizer("llama-bpe")
