"""A tiktoken vocabulary file, as Moonlight and Kimi have it; tiktoken itself is the judge."""

import base64
import json

import pytest
from tiny_vocabulary import HARD_STRINGS

from sprat.errors import TokenizerError
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.pretokenizers import get_pre_tokenizer
from sprat.runtime.tokenizer.tokenizer import Tokenizer
from sprat.runtime.tokenizer.vocabulary import TokenType

WORDS = [
    "th",
    "he",
    "in",
    "er",
    "the",
    " th",
    " the",
    " in",
    "ing",
    "user",
    "名",
    "日本",
    "  ",
    "\n\n",
    "aba",
    "ab",
    "ba",
]
FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
NAMES = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 5: "<|im_user|>"}  # counted from the last rank


def ranks():
    """All bytes, then words with all their parts, then a token that no merge makes."""
    tokens = [bytes([byte]) for byte in range(256)]
    for word in WORDS:
        data = word.encode()
        tokens += [data[:end] for end in range(2, len(data) + 1) if data[:end] not in tokens]
    return {token: rank for rank, token in enumerate([*tokens, b"unmergeable"])}


RANKS = ranks()
N_ROWS = len(RANKS) + 256


def write(folder, changes=lambda config: None, n_rows=N_ROWS):
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in RANKS.items())
    (folder / "tiktoken.model").write_text("".join(lines))
    decoder = {str(len(RANKS) + n): {"content": text, "special": True, **FLAGS} for n, text in NAMES.items()}
    config = {"bos_token": "[BOS]", "eos_token": "[EOS]", "added_tokens_decoder": decoder}
    changes(config)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"vocab_size": n_rows, "eos_token_id": len(RANKS) + 1}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": len(RANKS) + 2}))
    return folder


def judge():
    tiktoken = pytest.importorskip("tiktoken")
    pattern = get_pre_tokenizer("kimi-k2").steps[0]["pattern"]["Regex"]
    special = {NAMES.get(n, f"<|reserved_token_{len(RANKS) + n}|>"): len(RANKS) + n for n in range(256)}
    return tiktoken.Encoding("kimi", pat_str=pattern, mergeable_ranks=RANKS, special_tokens=special)


TEXTS = [
    *HARD_STRINGS,
    "the thing in there",
    "ababa babab abab",
    "unmergeable",
    "[BOS]<|im_user|>user<|reserved_token_300|>hi<|im_end|>[EOS]",
]


@pytest.mark.parametrize("origin", ["file", "gguf"])
def test_ids_equal_those_of_tiktoken(tmp_path, origin):
    folder, encoding = write(tmp_path), judge()
    ours = Tokenizer.from_file(folder) if origin == "file" else Tokenizer.from_gguf(tokenizer_metadata(folder))
    for text in TEXTS:
        assert ours.encode(text) == encoding.encode(text, disallowed_special=()), repr(text)
        assert ours.encode(text, parse_special=True) == encoding.encode(text, allowed_special="all"), repr(text)


def test_special_tokens_are_named_or_reserved(tmp_path):
    tokenizer = Tokenizer.from_file(write(tmp_path))
    n = len(RANKS)
    assert tokenizer.vocab_size == N_ROWS
    assert [tokenizer.token_text(n + at) for at in (0, 2, 3, 255)] == [
        "[BOS]",
        "<|im_end|>",
        f"<|reserved_token_{n + 3}|>",
        f"<|reserved_token_{n + 255}|>",
    ]
    assert {tokenizer.vocabulary.types[index] for index in range(n, N_ROWS)} == {TokenType.CONTROL}
    assert (tokenizer.bos_id, tokenizer.eog_ids) == (n, {n + 1, n + 2})


def test_a_named_token_without_a_row_is_an_error(tmp_path):
    def change(config):
        config["added_tokens_decoder"][str(N_ROWS)] = {"content": "<far>", "special": True, **FLAGS}

    with pytest.raises(TokenizerError, match=f"'<far>' with id {N_ROWS} in tokenizer_config.json"):
        Tokenizer.from_file(write(tmp_path, change))


DAMAGE = {
    "no rank": (b"aGk=\n", "line 1 is"),
    "not base64": (b"!!! 0\n", "line 1 is"),
    "a token twice": (b"aGk= 0\naGk= 1\n", "line 2 repeats"),
    "a missing rank": (b"aGk= 1\n", "the ranks are not 0 to 0"),
    "missing bytes": (b"aGk= 0\n", "256 of 256 bytes have no token"),
    "empty": (b"", "256 of 256 bytes"),
}


@pytest.mark.parametrize(("data", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_an_error(tmp_path, data, message):
    write(tmp_path)
    (tmp_path / "tiktoken.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_file(tmp_path)


def test_very_long_tokens_are_an_error_before_they_take_memory(tmp_path):
    lines = [base64.b64encode(bytes([byte])).decode() for byte in range(256)]
    lines += [base64.b64encode(b"a" * n).decode() for n in range(2, 1000)]
    write(tmp_path)
    (tmp_path / "tiktoken.model").write_text("".join(f"{line} {rank}\n" for rank, line in enumerate(lines)))
    with pytest.raises(TokenizerError, match="longer tokens than a vocabulary has"):
        Tokenizer.from_file(tmp_path)


def test_code_with_another_pre_tokenizer_is_an_error(tmp_path):
    write(tmp_path)
    (tmp_path / "tokenization_moonshot.py").write_text('pat_str = "|".join([r"""[\\p{Han}]+""", "x"])')
    Tokenizer.from_file(tmp_path)
    (tmp_path / "tokenization_other.py").write_text('pat_str = "x"')
    with pytest.raises(TokenizerError, match=r"tokenization_other\.py: found another pre-tokenizer"):
        Tokenizer.from_file(tmp_path)


def test_a_tiktoken_file_under_the_name_of_sentencepiece_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "tiktoken.model").rename(tmp_path / "tokenizer.model")
    with pytest.raises(TokenizerError, match="a tiktoken vocabulary without its pre-tokenizer"):
        Tokenizer.from_file(tmp_path)
