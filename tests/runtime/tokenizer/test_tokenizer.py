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
    """A function that returns a folder with a trained tokenizer for a pre-tokenizer; each is trained once."""
    trained = {}

    def get(name):
        if name not in trained:
            trained[name] = write_byte_level(tmp_path_factory.mktemp(name), name)
        return trained[name]

    return get


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_file(folder("deepseek-v3"))


def rebuilt(path):
    """The tokenizer rebuilt from the GGUF's token list and merges."""
    metadata = tokenizer_metadata(path)
    del metadata["tokenizer.huggingface.json"]
    return Tokenizer.from_gguf(metadata)


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_those_of_the_library(folder, name):
    ours = Tokenizer.from_file(folder(name))
    library = tokenizers.Tokenizer.from_file(str(folder(name) / "tokenizer.json"))
    for text in HARD_STRINGS:
        assert ours.encode(text, parse_special=True) == library.encode(text, add_special_tokens=False).ids, repr(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_gguf_gives_the_same_ids_with_and_without_the_embedded_tokenizer_json(folder, name):
    ours = Tokenizer.from_file(folder(name))
    for other in (rebuilt(folder(name)), Tokenizer.from_gguf(tokenizer_metadata(folder(name)))):
        for text in HARD_STRINGS:
            assert other.encode(text) == ours.encode(text), repr(text)
            assert other.encode(text, parse_special=True) == ours.encode(text, parse_special=True), repr(text)
        assert (other.bos_id, other.eog_ids, other.vocab_size) == (ours.bos_id, ours.eog_ids, ours.vocab_size)


@pytest.mark.parametrize("name", ["deepseek-v3", "qwen2"])
def test_the_length_check_never_refuses_what_fits(folder, name):
    tokenizer = Tokenizer.from_file(folder(name))
    decomposed = ["\u1100\u1161\u11a8", "\u03b1\u0313\u0300\u0345", "u\u0308\u0304", "e\u0301"]  # NFC shortens them
    for text in [*HARD_STRINGS, *decomposed]:
        tokenizer.check_length(text * 50, len(tokenizer.encode(text * 50)))
    with pytest.raises(PromptError, match=r"has 10,000 characters, the context holds 7 tokens"):
        tokenizer.check_length("a" * 10_000, 7)


def test_a_long_text_is_encoded_in_slices_until_they_exceed_the_limit(folder, monkeypatch):
    tokenizer, sizes = Tokenizer.from_file(folder("qwen2")), []
    encode = tokenizer._encode_text
    monkeypatch.setattr(tokenizer, "_encode_text", lambda text: sizes.append(len(text)) or encode(text))
    text = "a word or two " * 200_000
    with pytest.raises(PromptError, match="2,800,000 characters, more than the 100,000 tokens"):
        tokenizer.check_length(text, 100_000)
    assert sum(sizes) < len(text) / 4
    tokenizer.check_length(text, len(text))


def test_spaces_that_belong_to_an_added_token_do_not_count(folder, tmp_path):
    document = json.loads((folder("deepseek-v3") / "tokenizer.json").read_text(encoding="utf-8"))
    token = {"id": 1250, "content": "<mask>", "single_word": False, "lstrip": True, "rstrip": True}
    document["added_tokens"].append(token | {"normalized": False, "special": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    tokenizer, text = Tokenizer.from_file(tmp_path), " " * 100_000 + "<mask>"
    tokenizer.check_length(text, len(tokenizer.encode(text)))
    assert len(tokenizer.encode(text)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_decoding_returns_the_text(folder, name):
    ours = Tokenizer.from_file(folder(name))
    for text in HARD_STRINGS:
        normal = unicodedata.normalize("NFC", text) if name == "qwen2" else text
        assert ours.decode(ours.encode(text)) == normal


def test_a_special_token_in_user_text_stays_text(tokenizer):
    for text in (f"{USER}hi", f"a{EOS}b", f"{BOS}{BOS}"):
        typed = tokenizer.encode(text)
        assert not {tokenizer.bos_id, *tokenizer.eog_ids, tokenizer.encode(USER, parse_special=True)[0]} & {*typed}
        assert tokenizer.decode(typed) == text
    parsed = tokenizer.encode(f"{USER}hi{EOS}", parse_special=True)
    assert tokenizer.token_text(parsed[0]) == USER
    assert parsed[-1] in tokenizer.eog_ids
    assert tokenizer.decode(parsed) == "hi"


def test_a_user_defined_token_is_always_one_token(tokenizer):
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


def test_no_bos_is_added_if_the_config_says_so(tmp_path):
    tokenizer = Tokenizer.from_file(write_byte_level(tmp_path, "qwen2", add_bos_token=False))
    assert tokenizer.encode("hi", add_bos=True) == tokenizer.encode("hi")


def test_the_post_processor_decides_about_bos_if_the_config_does_not(tmp_path):
    folder = write_byte_level(tmp_path, "llama-bpe", add_bos_token=None)
    assert not Tokenizer.from_file(folder).vocabulary.add_bos
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    single = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {BOS: {"id": BOS, "ids": [1200], "tokens": [BOS]}}
    template = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}
    document["post_processor"] = {"type": "Sequence", "processors": [template]}
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert Tokenizer.from_file(folder).vocabulary.add_bos


def test_all_eos_tokens_of_the_generation_config_are_eog_tokens(tmp_path):
    folder = write_byte_level(tmp_path, "deepseek-v3")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1201, 1203]}))
    assert Tokenizer.from_file(folder).eog_ids == {1201, 1203}
    assert rebuilt(folder).eog_ids == {1201, 1203}


@pytest.mark.parametrize("value", ["1201", [1201, "1203"], [True], 1201.0, {"id": 1201}])
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_an_end_token_that_is_no_id_is_an_error(tmp_path, name, value):
    folder = write_byte_level(tmp_path, "deepseek-v3")
    path = folder / name
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(config | {"eos_token_id": value}), encoding="utf-8")
    with pytest.raises(TokenizerError, match=rf"^{name}: eos_token_id is .*expected the id of a token"):
        Tokenizer.from_file(folder)


def test_the_vocabulary_is_padded_to_the_embedding(tokenizer):
    assert tokenizer.vocab_size == 1280
    assert tokenizer.token_text(1279) == "[PAD1279]"
    assert tokenizer.vocabulary.types[1279] is TokenType.UNUSED
    assert tokenizer.decode([1279]) == ""


def test_ids_outside_the_vocabulary_are_an_error(tokenizer):
    for token in (-1, 1280):
        with pytest.raises(PromptError, match="expected 0 to 1279"):
            tokenizer.decode([token])
        with pytest.raises(PromptError, match="outside the vocabulary"):
            tokenizer.token_text(token)


def test_a_model_without_a_tokenizer_takes_ids_only():
    tokenizer = Tokenizer.from_gguf(
        {"general.architecture": "llama", "llama.vocab_size": 7, "tokenizer.ggml.model": "none"}
    )
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eog_ids) == (7, None, frozenset())
    assert tokenizer.decode([1, 2]) == ""
    with pytest.raises(TokenizerError, match="pass token ids"):
        tokenizer.encode("hi")


def test_an_embedded_tokenizer_json_that_disagrees_with_the_token_list_is_an_error(folder):
    metadata = tokenizer_metadata(folder("deepseek-v3"))
    tokens = list(metadata["tokenizer.ggml.tokens"])
    tokens[300], tokens[301] = tokens[301], tokens[300]
    with pytest.raises(TokenizerError, match="disagree on 2 tokens"):
        Tokenizer.from_gguf(metadata | {"tokenizer.ggml.tokens": tokens})


INVALID = {
    "no token list": ({"tokenizer.ggml.tokens": None}, "tokens is missing"),
    "no merges": ({"tokenizer.ggml.merges": None}, "merges is missing"),
    "an unsupported model": ({"tokenizer.ggml.model": "bert"}, "'bert', expected one of gpt2, llama, none"),
    "an unknown pre-tokenizer": ({"tokenizer.ggml.pre": "qwen22"}, "did you mean 'qwen2'"),
    "a duplicate token": (
        {"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.token_type": [1, 1]},
        "more than once: 'a'",
    ),
    "too few types": ({"tokenizer.ggml.token_type": [1]}, "1 token types for 1280 tokens"),
    "an id of type string": ({"tokenizer.ggml.bos_token_id": "first"}, "of the wrong type"),
    "types that are not a list": ({"tokenizer.ggml.token_type": 7}, "of the wrong type"),
    "a list instead of a name": ({"tokenizer.ggml.model": ["gpt2"]}, "expected one of"),
    "a very long token": ({"tokenizer.ggml.tokens": ["a" * 2000]}, "a token of 2000 characters"),
    "byte tokens that are not bytes": (
        {"tokenizer.ggml.token_type": [6] * 1280},
        "byte tokens that are not written as <0x0A>",
    ),
    "an embedded JSON of another structure": (
        {"tokenizer.huggingface.json": '{"added_tokens": [1]}'},
        "is not a tokenizer.json",
    ),
    "merges of unknown tokens": ({"tokenizer.ggml.merges": ["qq zz"]}, "cannot be built"),
    "an embedded tokenizer that is not JSON": ({"tokenizer.huggingface.json": "{"}, "is not a tokenizer.json"),
    "an infinite id": ({"tokenizer.ggml.bos_token_id": float("inf")}, "of the wrong type"),
    "an embedded tokenizer that is not UTF-8": (
        {"tokenizer.huggingface.json": '{"\udcff": 1}'},
        "is not a tokenizer.json",
    ),
    "a token that is not UTF-8": ({"tokenizer.ggml.tokens": ["\udcff", *map(str, range(1279))]}, "cannot be built"),
    "nested JSON": ({"tokenizer.huggingface.json": "[" * 100_000}, "is not a tokenizer.json"),
    "a BOS id outside the vocabulary": ({"tokenizer.ggml.bos_token_id": 5000}, "there is no bos_token_id"),
}


@pytest.mark.parametrize(("change", "message"), INVALID.values(), ids=INVALID)
def test_invalid_metadata_is_an_error(folder, change, message):
    metadata = tokenizer_metadata(folder("deepseek-v3"))
    if "tokenizer.huggingface.json" not in change:
        del metadata["tokenizer.huggingface.json"]
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_gguf({key: value for key, value in (metadata | change).items() if value is not None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "a JSON list, expected an object"),
        ('{"model": {"type": "Unigram"}}', "type 'Unigram'"),
    ],
)
def test_a_file_that_is_not_a_supported_tokenizer_is_an_error(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_file(tmp_path)
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.json, tokenizer\.model nor tiktoken\.model found"):
        Tokenizer.from_file(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["padding", "bos", "eos", "eot", "unknown"])
@pytest.mark.parametrize("value", [-1, 5000, 2**32 - 1])
def test_an_id_that_names_no_token_counts_as_absent(folder, kind, value):
    metadata = tokenizer_metadata(folder("qwen2")) | {"tokenizer.ggml.add_bos_token": False}
    metadata[f"tokenizer.ggml.{kind}_token_id"] = value
    vocabulary = Tokenizer.from_gguf(metadata).vocabulary
    names = {"padding": vocabulary.pad_id, "bos": vocabulary.bos_id, "eos": vocabulary.eos_id}
    assert names.get(kind) is None
    assert all(0 <= index < len(vocabulary) for index in vocabulary.eog_ids)


@pytest.mark.parametrize(("name", "ignores"), [("llama-bpe", True), ("glm4", False)])
def test_of_equal_pre_tokenizers_the_merges_decide(folder, name, ignores):
    document = json.loads((folder(name) / "tokenizer.json").read_text(encoding="utf-8"))
    assert document["model"]["ignore_merges"] == ignores
    assert Tokenizer.from_file(folder(name)).vocabulary.pre == name
    assert tokenizer_metadata(folder(name))["tokenizer.ggml.pre"] == name
