"""Token ids equal llama.cpp's, from the same GGUF keys."""

import unicodedata
from pathlib import Path

import pytest
from tiny_vocabulary import HARD_STRINGS, write_byte_level
from vocabulary_gguf import write_vocabulary

from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.tokenizer.pretokenizers import PRE_TOKENIZERS
from sprat.runtime.tokenizer.tokenizer import Tokenizer
from sprat.runtime.tokenizer.vocabulary import TokenType

pytestmark = pytest.mark.slow
llama_cpp = pytest.importorskip("llama_cpp")


def assert_same_ids(tokenizer, path, texts=HARD_STRINGS):
    llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    try:
        for special in (False, True):
            for text in texts:
                expected = llama.tokenize(text.encode(), add_bos=False, special=special)
                assert tokenizer.encode(text, parse_special=special) == expected, repr(text)
    finally:
        llama.close()


def test_ids_of_a_published_gguf_equal_llama_cpp(smollm2_gguf):
    with GGUFFile.open(smollm2_gguf) as file:
        assert_same_ids(Tokenizer.from_gguf(file.metadata), smollm2_gguf)


def test_ids_of_sentencepiece_equal_llama_cpp(tmp_path):
    folder = Path(__file__).parents[2] / "data" / "sentencepiece"
    metadata = tokenizer_metadata(folder)
    # transformers adds the space before the first word only, llama.cpp after each special token
    assert metadata.pop("tokenizer.sprat.prefix_first_only") is True
    path = write_vocabulary(tmp_path / "vocabulary.gguf", metadata)
    assert_same_ids(Tokenizer.from_gguf(metadata), path)


@pytest.mark.parametrize("across_words", [False, True], ids=["merges within words", "merges across words"])
@pytest.mark.parametrize("name", [row.name for row in PRE_TOKENIZERS])
def test_ids_of_byte_level_bpe_equal_llama_cpp(tmp_path, name, across_words):
    folder = write_byte_level(tmp_path, name, across_words=across_words)
    metadata = tokenizer_metadata(folder)
    texts = [text for text in HARD_STRINGS if not known_difference(text, name, across_words)]
    assert_same_ids(Tokenizer.from_file(folder), write_vocabulary(tmp_path / "vocabulary.gguf", metadata), texts)


def known_difference(text, name, across_words):
    """Whether llama.cpp splits the text differently; most differences change ids only with merges across words."""
    if name in {"qwen2", "deepseek-r1-qwen"}:
        return text != unicodedata.normalize("NFC", text)  # llama.cpp does not normalize
    if name in {"gpt-4o", "kanana2", "kimi-k2", "youtu"} and _splits_unlike_llama_cpp(text, name, across_words):
        return True
    if name == "deepseek-llm" and any(unicodedata.category(c) in {"Nd", "Co"} for c in text):
        return across_words  # llama.cpp does not split runs of digits and of private use characters
    return across_words and name.startswith("deepseek-") and "\u2028" in text


def _splits_unlike_llama_cpp(text, name, across_words):
    """llama.cpp simplifies these expressions: marks, and case outside ASCII; in kimi-k2 all case, and the zero 〇."""
    if any(unicodedata.category(char).startswith("M") for char in text):
        return True
    if name == "youtu" and across_words and "camelCase" in text:
        return True
    if name == "kimi-k2":
        return "〇" in text or (across_words and "camelCase" in text)
    return across_words and any(char.isupper() and not char.isascii() for char in text)


def llama_cpp_ends(metadata, path):
    llama = llama_cpp.Llama(str(write_vocabulary(path, metadata)), vocab_only=True, verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    ends = {index for index in range(1280) if llama_cpp.llama_vocab_is_eog(vocab, index)}
    llama.close()
    return ends


def test_llama_cpp_ends_on_the_ids_in_the_keys(tmp_path):
    folder = write_byte_level(tmp_path, "deepseek-v3")
    (folder / "generation_config.json").write_text('{"eos_token_id": [1201, 1202]}')
    metadata = tokenizer_metadata(folder)
    ends = llama_cpp_ends(metadata, tmp_path / "v.gguf")
    assert ends == Tokenizer.from_file(folder).eog_ids == {1201, 1202}


# one of padding, repository and file for each vocabulary: llama.cpp takes the first that it finds
END_TEXTS = [
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<eos>", "</s>", "[EOS]", "[EOT]"],
    ["<|return|>", "<|call|>", "<|end|>", "<|calls|>", "<|flush|>", "<|tool_response>", "<turn|>", "[e~["],
    ["<|return|>", "<|end|>", "<end_of_turn>", "<end_of_utterance>", "<EOT>", "_<EOT>", "<|endoftext|>"],
    ["<|fim_pad|>", "<|fim_repo|>", "<|file_sep|>", "<|im_start|>", "<|user|>"],
    *([pad, repo] for pad, repo in zip(["<fim-pad>", "<fim_pad>"], ["<|repo_name|>", "<fim-repo>"], strict=True)),
    *([pad, repo] for pad, repo in zip(["<PAD>", "[PAD]"], ["<REPO>", "<reponame>"], strict=True)),
]


@pytest.mark.parametrize("texts", END_TEXTS, ids=" ".join)
def test_the_same_texts_end_an_answer_as_in_llama_cpp(tmp_path, texts):
    metadata = tokenizer_metadata(write_byte_level(tmp_path, "gpt-2"))
    metadata["tokenizer.ggml.tokens"] = metadata["tokenizer.ggml.tokens"][:1210] + texts
    metadata["tokenizer.ggml.tokens"] += [f"[{index}]" for index in range(1210 + len(texts), 1280)]
    metadata["tokenizer.ggml.token_type"][1210:] = TokenType.CONTROL
    assert Tokenizer.from_gguf(metadata).eog_ids == llama_cpp_ends(metadata, tmp_path / "v.gguf")


def test_keys_of_fill_in_the_middle_name_ends_as_in_llama_cpp(tmp_path):
    metadata = tokenizer_metadata(write_byte_level(tmp_path, "gpt-2"))
    metadata |= {f"tokenizer.ggml.fim_{kind}_token_id": 1210 + i for i, kind in enumerate(("pad", "rep", "sep"))}
    assert Tokenizer.from_gguf(metadata).eog_ids == llama_cpp_ends(metadata, tmp_path / "v.gguf")
