"""The layout of DeepSeek-R1-Distill-Qwen's tokenizer: ids equal those of ``tokenizers``, transformers and llama.cpp."""

import unicodedata

import pytest
import tokenizers
from r1_distill_qwen import write_r1_distill_qwen
from tiny_vocabulary import BOS, EOS, HARD_STRINGS
from vocabulary_gguf import write_vocabulary

from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_r1_distill_qwen(tmp_path_factory.mktemp("distill") / "model")


@pytest.fixture(scope="module")
def metadata(folder):
    return tokenizer_metadata(folder)


def test_it_has_a_gguf_name_of_its_own_and_a_bos(metadata):
    tokens = metadata["tokenizer.ggml.tokens"]
    assert metadata["tokenizer.ggml.pre"] == "deepseek-r1-qwen"
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert tokens[metadata["tokenizer.ggml.bos_token_id"]] == BOS
    assert tokens[metadata["tokenizer.ggml.eos_token_id"]] == EOS


@pytest.mark.parametrize("source", ["checkpoint", "GGUF"])
def test_ids_of_hard_strings_equal_those_of_tokenizers(folder, metadata, source):
    ours = Tokenizer.from_file(folder) if source == "checkpoint" else Tokenizer.from_gguf(metadata)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in HARD_STRINGS:
        expected = library.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, parse_special=True) == expected, repr(text)
    assert ours.with_bos(ours.encode("hi")) == library.encode("hi").ids


def test_ids_of_hard_strings_equal_those_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    library = transformers.AutoTokenizer.from_pretrained(str(folder))
    ours = Tokenizer.from_file(folder)
    for text in HARD_STRINGS:
        expected = library.encode(text, add_special_tokens=False)
        assert ours.encode(text, parse_special=True) == expected, repr(text)


@pytest.mark.slow
def test_ids_and_end_tokens_equal_those_of_llama_cpp(metadata, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    ours = Tokenizer.from_gguf(metadata)
    llama = llama_cpp.Llama(str(write_vocabulary(tmp_path / "v.gguf", metadata)), vocab_only=True, verbose=False)
    try:
        for text in HARD_STRINGS:
            composed = unicodedata.normalize("NFC", text)  # llama.cpp does not normalize
            expected = llama.tokenize(composed.encode(), add_bos=False, special=True)
            assert ours.encode(text, parse_special=True) == expected, repr(text)
        vocab = llama_cpp.llama_model_get_vocab(llama.model)
        ends = {index for index in range(ours.vocab_size) if llama_cpp.llama_vocab_is_eog(vocab, index)}
    finally:
        llama.close()
    assert ours.eog_ids == ends
