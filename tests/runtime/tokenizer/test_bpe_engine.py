"""A large vocabulary is given to the library in part, and every id is that of the whole."""

import json
import threading

import pytest
from tiny_vocabulary import HARD_STRINGS, write_byte_level

from sprat.errors import TokenizerError
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer import bpe_engine
from sprat.runtime.tokenizer.bpe_engine import BPEEngine, in_one_piece
from sprat.runtime.tokenizer.tokenizer import Tokenizer

EMBEDDED = "tokenizer.huggingface.json"


@pytest.fixture(scope="module", params=["deepseek-llm", "deepseek-v3", "llama-bpe", "qwen2"])
def metadata(request, tmp_path_factory):
    return tokenizer_metadata(write_byte_level(tmp_path_factory.mktemp("tokenizer"), request.param))


@pytest.fixture
def large(monkeypatch):
    """Every vocabulary counts as large, and is checked in several steps."""
    monkeypatch.setattr(bpe_engine, "_FEW_MERGES", 0)
    monkeypatch.setattr(bpe_engine, "_AT_A_TIME", 2)


def in_part(metadata):
    tokenizer = Tokenizer.from_gguf(metadata)
    assert isinstance(tokenizer._engine, BPEEngine)
    return tokenizer


def rebuilt(metadata):
    return {key: value for key, value in metadata.items() if key != EMBEDDED}


def with_old_merges(metadata):
    """The tokenizer.json as versions of tokenizers before 0.20 write it."""
    document = json.loads(metadata[EMBEDDED])
    document["model"]["merges"] = list(map(" ".join, document["model"]["merges"]))
    return metadata | {EMBEDDED: json.dumps(document)}


@pytest.mark.parametrize("changed", [dict, with_old_merges, rebuilt])
def test_ids_are_those_of_all_merges_together(metadata, changed, large, monkeypatch):
    keys = changed(metadata)
    part = in_part(keys)
    monkeypatch.setattr(bpe_engine, "_FEW_MERGES", len(keys["tokenizer.ggml.merges"]) + 1)
    whole = Tokenizer.from_gguf(keys)
    assert not isinstance(whole._engine, BPEEngine)
    part._engine._left = 1 << 40
    for text in [*HARD_STRINGS, "".join(HARD_STRINGS), " " * 300, "<think>" * 3]:
        for parse_special in (False, True):
            expected = whole.encode(text, parse_special=parse_special)
            assert part.encode(text, parse_special=parse_special) == expected, repr(text)
    assert not part._engine._is_whole


def test_many_texts_or_a_long_one_give_the_library_everything(metadata, large):
    tokenizer = in_part(metadata)
    first = tokenizer.encode("What is 17 + 25?")
    assert not tokenizer._engine._is_whole
    for _ in range(bpe_engine._MAX_LOOKUPS // bpe_engine._LOOKUPS_PER_TEXT):
        assert tokenizer.encode("What is 17 + 25?") == first
    assert tokenizer._engine._is_whole
    tokenizer = in_part(metadata)
    tokenizer.encode("a long word or two " * 10_000)
    assert tokenizer._engine._is_whole
    assert tokenizer.encode("What is 17 + 25?") == first


def test_threads_may_encode_at_once_while_the_model_is_exchanged(metadata, large):
    tokenizer, wrong = in_part(metadata), []
    expected = {text: in_part(metadata).encode(text) for text in HARD_STRINGS[:20]}

    def encode():
        wrong.extend(text for text, ids in expected.items() for _ in range(3) if tokenizer.encode(text) != ids)

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokenizer._engine._is_whole
    assert wrong == []


@pytest.mark.parametrize("merge", ["qq zz", "a qq", "a", "a b c", "a  b"])
def test_merges_that_name_no_tokens_are_refused_when_the_model_is_loaded(metadata, merge, large):
    merges = [*metadata["tokenizer.ggml.merges"], merge]
    with pytest.raises(TokenizerError, match="cannot be built"):
        Tokenizer.from_gguf(rebuilt(metadata) | {"tokenizer.ggml.merges": merges})


@pytest.mark.parametrize("merge", ["a b c", "ab", "a b\nb c", "a\nb c", "a d", "a c", " ", ""])
def test_merges_that_are_no_pair_of_tokens_are_given_to_the_library_at_once(merge, large):
    vocab = dict.fromkeys(["a", "b", "c", "ab", "bc"])
    assert not in_one_piece(["a b", "b c"], vocab)
    for merges in (["a b", merge, "b c"], [merge], ["a b", merge], [merge, "a b"]):
        assert in_one_piece(merges, vocab)
