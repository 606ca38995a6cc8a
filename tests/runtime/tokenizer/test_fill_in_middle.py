"""Fill-in-the-middle: its tokens are found by text or by key, and travel in llama.cpp's keys."""

import json

import pytest
from tiny_vocabulary import write_byte_level
from vocabulary_gguf import write_vocabulary

from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.fill_in_middle import FillInMiddle
from sprat.runtime.tokenizer.tokenizer import Tokenizer
from sprat.runtime.tokenizer.vocabulary import Vocabulary

DEEPSEEK = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


@pytest.mark.parametrize("texts", [DEEPSEEK, QWEN], ids=["DeepSeek", "Qwen"])
def test_tokens_are_found_by_their_text(texts):
    before, after, middle = texts
    ids = {"a": 0, middle: 1, before: 2, "b": 3, after: 4}
    assert FillInMiddle.find(ids) == FillInMiddle(2, 4, 1)
    assert FillInMiddle.find({text: index for text, index in ids.items() if text != after}) is None


def test_keys_of_the_file_come_first():
    found = FillInMiddle.find({text: index for index, text in enumerate(DEEPSEEK)}, {"fim_mid": 3}.get)
    assert found == FillInMiddle(0, 1, 3)


def test_the_prompt_has_deepseeks_order():
    assert FillInMiddle(7, 8, 9).parts("def f(", "return x") == [7, "def f(", 8, "return x", 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = write_byte_level(tmp_path_factory.mktemp("coder"), "deepseek-llm")
    document = json.loads((path / "tokenizer.json").read_text())
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    size = 1 + max(token["id"] for token in document["added_tokens"])
    document["added_tokens"] += [{"id": size + place, "content": text, **flags} for place, text in enumerate(DEEPSEEK)]
    (path / "tokenizer.json").write_text(json.dumps(document))
    return path


def test_the_tokens_have_llamacpps_keys_in_a_gguf(folder):
    metadata = tokenizer_metadata(folder)
    tokens = metadata["tokenizer.ggml.tokens"]
    for key, text in zip(("fim_pre", "fim_suf", "fim_mid"), DEEPSEEK, strict=True):
        assert tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] == text
    read = Vocabulary.from_metadata(metadata)
    assert read.fill_in_middle == FillInMiddle(*(tokens.index(text) for text in DEEPSEEK))


def test_a_key_that_names_no_token_is_ignored(folder):
    metadata = tokenizer_metadata(folder)
    right = Vocabulary.from_metadata(metadata).fill_in_middle
    assert Vocabulary.from_metadata(metadata | {"tokenizer.ggml.fim_mid_token_id": 2**32 - 1}).fill_in_middle == right


def test_ids_are_those_of_the_published_prompt_as_text(folder):
    """DeepSeek-Coder-V2's README: ``<｜fim▁begin｜>`` prefix ``<｜fim▁hole｜>`` suffix ``<｜fim▁end｜>``."""
    import tokenizers

    tokenizer = Tokenizer.from_gguf(tokenizer_metadata(folder))
    judge = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    before, after = "def mean(values):\n    total = 0\n", "\n    return total / len(values)\n"
    begin, hole, end = DEEPSEEK
    expected = judge.encode(f"{begin}{before}{hole}{after}{end}", add_special_tokens=False).ids
    assert tokenizer.encode_parts(tokenizer.vocabulary.fill_in_middle.parts(before, after)) == expected


@pytest.mark.slow
def test_llamacpp_finds_the_same_tokens(folder, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    metadata = tokenizer_metadata(folder)
    model = llama_cpp.Llama(str(write_vocabulary(tmp_path / "v.gguf", metadata)), vocab_only=True, verbose=False)
    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    found = [getattr(llama_cpp, f"llama_vocab_fim_{key}")(vocabulary) for key in ("pre", "suf", "mid")]
    assert FillInMiddle(*found) == Vocabulary.from_metadata(metadata).fill_in_middle
