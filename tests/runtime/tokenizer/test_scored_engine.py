"""SentencePiece tokens with equal scores: the leftmost pair is merged first, as in sentencepiece and llama.cpp."""

import random

import pytest
from sentencepiece_model import CONTROL, NORMAL, bpe_model

from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.library_engine import LibraryEngine
from sprat.runtime.tokenizer.scored_engine import ScoredEngine
from sprat.runtime.tokenizer.tokenizer import Tokenizer

WORDS = ("▁", "a", "b", "c", "ab", "bc", "aa", "aaa", "▁a", "cab", "abc", "aab")


@pytest.fixture
def folder(tmp_path):
    """A model whose longer pieces all have the score 0, as those that were added to Chinese Llamas."""
    pieces = [(word, 0.0 if len(word) > 1 else -1.0 - index, NORMAL) for index, word in enumerate(WORDS)]
    model = bpe_model([("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), *pieces])
    (tmp_path / "tokenizer.model").write_bytes(model)
    return tmp_path


def gguf_keys(folder):
    """Keys with llama.cpp's rule for the space before text."""
    return {key: value for key, value in tokenizer_metadata(folder).items() if not key.startswith("tokenizer.sprat")}


# Pieces of sentencepiece 0.2.3 and of llama.cpp (llama-cpp-python 0.3.36)
EXPECTED = {
    "abc": ["▁a", "bc"],
    "aaaa": ["▁a", "aaa"],
    "aaaaaaa": ["▁a", "aaa", "aaa"],
    "cabab": ["▁", "cab", "ab"],
    "abcabcaab": ["▁a", "bc", "abc", "aab"],
    "aab aab": ["▁a", "ab", "▁a", "ab"],
    "bcabé": ["▁", "bc", "ab", "<0xC3>", "<0xA9>"],
    "": [],
}


@pytest.mark.parametrize(("text", "pieces"), EXPECTED.items())
def test_the_leftmost_of_equal_scores_is_merged_first(folder, text, pieces):
    for tokenizer in (Tokenizer.from_file(folder), Tokenizer.from_gguf(gguf_keys(folder))):
        assert isinstance(tokenizer._engine, ScoredEngine)
        assert list(map(tokenizer.token_text, tokenizer.encode(text))) == pieces
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_stay_apart(folder):
    tokenizer = Tokenizer.from_file(folder)
    pieces = list(map(tokenizer.token_text, tokenizer.encode("abc</s>abc", parse_special=True)))
    assert pieces == ["▁a", "bc", "</s>", "abc"]


def test_a_trained_vocabulary_is_run_by_the_library(folder):
    """Each score once; control and byte tokens, which share one, are not merged."""
    keys = gguf_keys(folder)
    keys["tokenizer.ggml.scores"] = [-float(index) for index in range(len(keys["tokenizer.ggml.tokens"]))]
    assert isinstance(Tokenizer.from_gguf(keys)._engine, LibraryEngine)


@pytest.mark.slow
def test_the_ids_are_those_of_llamacpp(folder):
    llama_cpp = pytest.importorskip("llama_cpp")
    from vocabulary_gguf import write_vocabulary

    keys, rng = gguf_keys(folder), random.Random(0)
    tokenizer = Tokenizer.from_gguf(keys)
    llama = llama_cpp.Llama(str(write_vocabulary(folder / "v.gguf", keys)), vocab_only=True, verbose=False)
    for _ in range(1000):
        text = "".join(rng.choices("aaabc ", k=rng.randrange(1, 30)))
        assert tokenizer.encode(text) == llama.tokenize(text.encode(), add_bos=False, special=False), text
    llama.close()
