import json
import unicodedata

import pytest
import tokenizers
from tiny_vocabulary import BOS, EOS, HARD_STRINGS, USER, write_byte_level

from sprat.errors import PromptError, TokenizerError
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.pretokenizers import PRE_TOKENIZERS
from sprat.runtime.tokenizer.tokenizer import Tokenizer
from sprat.runtime.tokenizer.vocabulary import TokenType

NAMES = [row.name for row in PRE_TOKENIZERS if row.name != "deepseek-r1-qwen"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of trained tokenizers by pre-tokenizer, each made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = write_byte_level(tmp_path_factory.mktemp(name), name)
        return made[name]

    return get


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_file(folder("deepseek-v3"))


def rebuilt(path):
    """From the GGUF's keys alone."""
    metadata = tokenizer_metadata(path)
    del metadata["tokenizer.huggingface.json"]
    return Tokenizer.from_gguf(metadata)


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_the_library(folder, name):
    ours = Tokenizer.from_file(folder(name))
    library = tokenizers.Tokenizer.from_file(str(folder(name) / "tokenizer.json"))
    for text in HARD_STRINGS:
        assert ours.encode(text, parse_special=True) == library.encode(text, add_special_tokens=False).ids, repr(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_gguf_gives_the_same_ids_with_and_without_the_travelling_file(folder, name):
    ours = Tokenizer.from_file(folder(name))
    for other in (rebuilt(folder(name)), Tokenizer.from_gguf(tokenizer_metadata(folder(name)))):
        for text in HARD_STRINGS:
            assert other.encode(text) == ours.encode(text), repr(text)
            assert other.encode(text, parse_special=True) == ours.encode(text, parse_special=True), repr(text)
        assert (other.bos_id, other.eos_ids, other.vocab_size) == (ours.bos_id, ours.eos_ids, ours.vocab_size)


@pytest.mark.parametrize("name", NAMES)
def test_text_comes_back(folder, name):
    ours = Tokenizer.from_file(folder(name))
    for text in HARD_STRINGS:
        normal = unicodedata.normalize("NFC", text) if name == "qwen2" else text
        assert ours.decode(ours.encode(text)) == normal


def test_a_special_token_that_a_user_types_stays_text(tokenizer):
    for text in (f"{USER}hi", f"a{EOS}b", f"{BOS}{BOS}"):
        typed = tokenizer.encode(text)
        assert not {tokenizer.bos_id, *tokenizer.eos_ids, tokenizer.encode(USER, parse_special=True)[0]} & {*typed}
        assert tokenizer.decode(typed) == text
    parsed = tokenizer.encode(f"{USER}hi{EOS}", parse_special=True)
    assert tokenizer.token_text(parsed[0]) == USER
    assert parsed[-1] in tokenizer.eos_ids
    assert tokenizer.decode(parsed) == "hi"


def test_a_user_defined_token_is_one_token_wherever_it_stands(tokenizer):
    ids = tokenizer.encode("<think>x</think>")
    assert [tokenizer.token_text(ids[0]), tokenizer.token_text(ids[-1])] == ["<think>", "</think>"]
    assert tokenizer.decode(ids) == "<think>x</think>"


def test_there_is_exactly_one_bos(tokenizer):
    bos = tokenizer.bos_id
    plain = tokenizer.encode("hi")
    assert tokenizer.encode("hi", add_bos=True) == [bos, *plain]
    assert tokenizer.encode(f"{BOS}hi", add_bos=True, parse_special=True) == [bos, *plain]
    assert tokenizer.encode("", add_bos=True) == [bos]
    assert tokenizer.with_bos([bos, *plain]) == [bos, *plain]


def test_a_model_that_wants_no_bos_gets_none(tmp_path):
    tokenizer = Tokenizer.from_file(write_byte_level(tmp_path, "qwen2", add_bos_token=False))
    assert tokenizer.encode("hi", add_bos=True) == tokenizer.encode("hi")


def test_the_post_processor_decides_where_the_config_is_silent(tmp_path):
    folder = write_byte_level(tmp_path, "llama-bpe", add_bos_token=None)
    assert not Tokenizer.from_file(folder).vocabulary.add_bos
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    single = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {BOS: {"id": BOS, "ids": [1200], "tokens": [BOS]}}
    template = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}
    document["post_processor"] = {"type": "Sequence", "processors": [template]}
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert Tokenizer.from_file(folder).vocabulary.add_bos


def test_every_end_token_of_the_generation_config_ends(tmp_path):
    folder = write_byte_level(tmp_path, "deepseek-v3")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1201, 1203]}))
    assert Tokenizer.from_file(folder).eos_ids == {1201, 1203}
    assert rebuilt(folder).eos_ids == {1201, 1203}


def test_the_vocabulary_is_padded_to_the_embedding(tokenizer):
    assert tokenizer.vocab_size == 1280
    assert tokenizer.token_text(1279) == "[PAD1279]"
    assert tokenizer.vocabulary.types[1279] is TokenType.UNUSED
    assert tokenizer.decode([1279]) == ""


def test_ids_beyond_the_vocabulary_are_refused(tokenizer):
    for token in (-1, 1280):
        with pytest.raises(PromptError, match="expected 0 to 1279"):
            tokenizer.decode([token])
        with pytest.raises(PromptError, match="beyond the vocabulary"):
            tokenizer.token_text(token)


def test_a_file_without_a_tokenizer_takes_ids_only():
    tokenizer = Tokenizer.from_gguf(
        {"general.architecture": "llama", "llama.vocab_size": 7, "tokenizer.ggml.model": "none"}
    )
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids) == (7, None, frozenset())
    assert tokenizer.decode([1, 2]) == ""
    with pytest.raises(TokenizerError, match="pass token ids"):
        tokenizer.encode("hi")


def test_a_travelling_file_that_disagrees_with_the_token_list_is_refused(folder):
    metadata = tokenizer_metadata(folder("deepseek-v3"))
    tokens = list(metadata["tokenizer.ggml.tokens"])
    tokens[300], tokens[301] = tokens[301], tokens[300]
    with pytest.raises(TokenizerError, match="disagree on 2 tokens"):
        Tokenizer.from_gguf(metadata | {"tokenizer.ggml.tokens": tokens})


BROKEN = {
    "no token list": ({"tokenizer.ggml.tokens": None}, "tokens is missing"),
    "no merges": ({"tokenizer.ggml.merges": None}, "merges is missing"),
    "another model": ({"tokenizer.ggml.model": "bert"}, "'bert'; sprat knows gpt2, llama, none"),
    "an unknown pre-tokenizer": ({"tokenizer.ggml.pre": "qwen22"}, "did you mean 'qwen2'"),
    "a token twice": (
        {"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.token_type": [1, 1]},
        "more than once: 'a'",
    ),
    "types for other tokens": ({"tokenizer.ggml.token_type": [1]}, "1 token types for 1280 tokens"),
    "an id that is text": ({"tokenizer.ggml.bos_token_id": "first"}, "of the wrong type"),
    "types that are no list": ({"tokenizer.ggml.token_type": 7}, "of the wrong type"),
    "a list for a name": ({"tokenizer.ggml.model": ["gpt2"]}, "sprat knows"),
    "a token longer than a page": ({"tokenizer.ggml.tokens": ["a" * 2000]}, "a token of 2000 characters"),
    "bytes that are none": ({"tokenizer.ggml.token_type": [6] * 1280}, "byte tokens that are not written as <0x0A>"),
    "a travelling file of another shape": ({"tokenizer.huggingface.json": '{"added_tokens": [1]}'}, "is no tokenizer"),
    "merges of nothing": ({"tokenizer.ggml.merges": ["qq zz"]}, "cannot be built"),
    "a travelling file that is none": ({"tokenizer.huggingface.json": "{"}, "is no tokenizer.json"),
    "a BOS that is not named": ({"tokenizer.ggml.bos_token_id": 5000}, "there is no bos_token_id"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_metadata_that_cannot_be_trusted_is_refused(folder, change, message):
    metadata = tokenizer_metadata(folder("deepseek-v3"))
    if "tokenizer.huggingface.json" not in change:
        del metadata["tokenizer.huggingface.json"]
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_gguf({key: value for key, value in (metadata | change).items() if value is not None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected a JSON object"),
        ('{"model": {"type": "Unigram"}}', "type 'Unigram'"),
    ],
)
def test_a_file_that_is_no_known_tokenizer_is_refused(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_file(tmp_path)
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json there"):
        Tokenizer.from_file(tmp_path / "nowhere")
