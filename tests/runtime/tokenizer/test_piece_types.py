"""Types of SentencePiece's pieces: which are BOS and EOS, and what user-defined and unused ones do to the ids."""

import pytest
from sentencepiece_model import BOS_PIECE, CONTROL, EOS_PIECE, NORMAL, UNUSED, USER_DEFINED, bpe_model

from sprat.errors import TokenizerError
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.tokenizer import Tokenizer

ENDS = [("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
WORDS = ("▁", "d", "o", "g", "a", "t", "▁d", "og", "▁dog", "at", "▁a")
TEXTS = ("dog", "a dog at", "dogdog")


def write(folder, pieces, trainer=None):
    (folder / "tokenizer.model").write_bytes(bpe_model(pieces, trainer))
    return folder


def write_words(folder, kinds):
    """A model of words; ``kinds`` has the types of those that are not normal."""
    return write(folder, [*ENDS, *((w, -float(i), kinds.get(w, NORMAL)) for i, w in enumerate(WORDS))])


def gguf_keys(folder, kinds):
    """Keys with llama.cpp's rule for the space before text."""
    keys = dict(tokenizer_metadata(write_words(folder, {})))
    keys.pop("tokenizer.sprat.prefix_first_only", None)
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"].copy()
    for word, kind in kinds.items():
        types[tokens.index(word)] = kind
    return keys | {"tokenizer.ggml.token_type": types}


@pytest.mark.parametrize(
    ("pieces", "trainer", "ends"),
    [
        (ENDS, {}, (257, 258)),
        ([("<|a|>", 0.0, CONTROL), ("<|b|>", 0.0, CONTROL)], {BOS_PIECE: "<|a|>", EOS_PIECE: "<|b|>"}, (257, 258)),
        ([*ENDS, ("<|b|>", 0.0, CONTROL)], {EOS_PIECE: "<|b|>"}, (257, 259)),
        ([("<s>", 0.0, NORMAL), ("</s>", 0.0, CONTROL)], {}, (None, 258)),
        ([("a", 0.0, NORMAL)], {}, (None, None)),
    ],
)
def test_bos_and_eos_are_the_control_pieces_that_the_file_names(tmp_path, pieces, trainer, ends):
    """As ``bos_id()`` and ``eos_id()`` of sentencepiece 0.2.3; it has -1 for none."""
    found = Tokenizer.from_file(write(tmp_path, [*pieces, ("▁", -1.0, NORMAL)], trainer))
    assert (found.bos_id, found.vocabulary.eos_id) == ends
    assert found.vocabulary.add_bos == (ends[0] is not None)
    assert found.eog_ids >= {ends[1]} - {None}


# Types -> the pieces of TEXTS in llama.cpp (llama-cpp-python 0.3.36)
OF_LLAMACPP = [
    ({}, [["▁dog"], ["▁a", "▁dog", "▁", "at"], ["▁dog", "d", "og"]]),
    ({"▁dog": USER_DEFINED}, [["▁dog"], ["▁a", "▁dog", "▁", "at"], ["▁dog", "d", "og"]]),
    ({"og": USER_DEFINED}, [["▁d", "og"], ["▁a", "▁d", "og", "▁", "▁", "at"], ["▁d", "og", "▁d", "og"]]),
    ({"og": UNUSED}, [["▁dog"], ["▁a", "▁dog", "▁", "at"], ["▁dog", "d", "og"]]),
    ({"▁dog": UNUSED}, [["▁dog"], ["▁a", "▁dog", "▁", "at"], ["▁dog", "d", "og"]]),
]


@pytest.mark.parametrize(("kinds", "expected"), OF_LLAMACPP)
def test_the_ids_of_a_gguf_are_those_of_llamacpp(tmp_path, kinds, expected):
    tokenizer = Tokenizer.from_gguf(gguf_keys(tmp_path, kinds))
    assert [list(map(tokenizer.token_text, tokenizer.encode(text))) for text in TEXTS] == expected


@pytest.mark.slow
@pytest.mark.parametrize(("kinds", "expected"), OF_LLAMACPP)
def test_llamacpp_gives_these_ids(tmp_path, kinds, expected):
    llama_cpp = pytest.importorskip("llama_cpp")
    from vocabulary_gguf import write_vocabulary

    keys = gguf_keys(tmp_path, kinds)
    llama = llama_cpp.Llama(str(write_vocabulary(tmp_path / "v.gguf", keys)), vocab_only=True, verbose=False)
    tokens = keys["tokenizer.ggml.tokens"]
    found = [[tokens[index] for index in llama.tokenize(text.encode(), add_bos=False)] for text in TEXTS]
    llama.close()
    assert found == expected


@pytest.mark.parametrize("piece", ["og", "▁dog"])
def test_a_model_with_unused_pieces_that_text_merges_into_is_refused(tmp_path, piece):
    """sentencepiece has "d", "o", "g" for them, llama.cpp and transformers the unused id, which no training saw."""
    with pytest.raises(TokenizerError, match=f"1 pieces are unused and made of others \\('{piece}'\\)"):
        Tokenizer.from_file(write_words(tmp_path, {piece: UNUSED}))


def test_unused_pieces_that_no_text_merges_into_are_harmless(tmp_path):
    folder = write(tmp_path, [*ENDS, ("▁", -1.0, NORMAL), ("<unused0>", 0.0, UNUSED)])
    assert Tokenizer.from_file(folder).encode(" ") == [259, 259]
