import json
from pathlib import Path

import pytest
import tokenizers
from tiny_vocabulary import HARD_STRINGS, write_byte_level
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from sprat.errors import TokenizerError
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.hf_json import build
from sprat.runtime.tokenizer.tokenizer import Tokenizer
from sprat.runtime.tokenizer.vocabulary import TokenType

DATA = Path(__file__).parents[2] / "data" / "sentencepiece"
GOLDEN = dict(zip(HARD_STRINGS, json.loads((DATA / "golden.json").read_text()), strict=True))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(DATA)


def test_ids_equal_those_of_sentencepiece(tokenizer):
    for text, ids in GOLDEN.items():
        if "<think>" not in text:  # sentencepiece adds the space before it, Hugging Face and llama.cpp after
            assert tokenizer.encode(text) == ids, repr(text)


def test_a_gguf_gives_the_same_ids(tokenizer):
    other = Tokenizer.from_gguf(tokenizer_metadata(DATA))
    for text in HARD_STRINGS:
        assert other.encode(text) == tokenizer.encode(text), repr(text)
        assert other.encode(text, parse_special=True) == tokenizer.encode(text, parse_special=True), repr(text)
    assert (other.bos_id, other.eog_ids, other.vocabulary.add_bos) == (1, {2}, True)


def test_decoding_removes_the_prefix_space(tokenizer):
    for text in HARD_STRINGS:
        if not {"▁", "<think>"} & {*text, text[:7]}:
            assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode("Paris")
    continued, fresh = tokenizer.stream_decoder(continues=True), tokenizer.stream_decoder()
    assert "".join(map(continued.feed, ids)) == " Paris"
    assert "".join(map(fresh.feed, ids)) == "Paris"


def test_byte_tokens_decode_to_characters(tokenizer):
    ids = tokenizer.encode("𓀀")
    assert {tokenizer.vocabulary.types[token] for token in ids[1:]} == {TokenType.BYTE}
    assert tokenizer.decode(ids) == "𓀀"
    assert tokenizer.decode(ids[:-1]) == "\ufffd"


def test_special_tokens_in_text_stay_text_unless_parsed(tokenizer):
    assert 3 not in tokenizer.encode("<｜User｜>hi")
    assert 1 not in tokenizer.encode("<s>")
    assert tokenizer.encode("<｜User｜>hi", parse_special=True, add_bos=True)[:2] == [1, 3]


def hugging_face(folder, pre_tokenizer, normalizer):
    """Train and save a tokenizer.json like the one that transformers writes for Llama."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        [text for text in HARD_STRINGS if text.isascii()],
        trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False, max_token_length=12),
    )
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(document))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}')
    return tokenizer


LEGACY = (None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))
FIRST = (pre_tokenizers.Metaspace(prepend_scheme="first", split=False), None)
NEVER = (None, normalizers.Replace(" ", "▁"))


@pytest.mark.parametrize("style", [LEGACY, FIRST, NEVER], ids=["legacy", "first word", "no space"])
def test_ids_from_a_tokenizer_json_equal_those_of_the_library(tmp_path, style):
    library = hugging_face(tmp_path, *style)
    ours = Tokenizer.from_file(tmp_path)
    for text in [*HARD_STRINGS, "<|im_start|>hi<|im_start|> hi", "a<s>b"]:
        expected = library.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, parse_special=True) == expected, repr(text)


@pytest.mark.parametrize("style", [LEGACY, NEVER], ids=["legacy", "no space"])
def test_a_gguf_made_from_a_tokenizer_json_gives_the_same_ids(tmp_path, style):
    hugging_face(tmp_path, *style)
    metadata = tokenizer_metadata(tmp_path)
    del metadata["tokenizer.huggingface.json"]
    ours, other = Tokenizer.from_file(tmp_path), Tokenizer.from_gguf(metadata)
    for text in HARD_STRINGS:
        assert other.encode(text) == ours.encode(text), repr(text)


DAMAGED = {
    "truncated": lambda data: data[:-3],
    "empty": lambda data: b"",
    "another file type": lambda data: b"\x7fELF" + data,
    "text": lambda data: b"once upon a time",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_model_is_an_error(tmp_path, damage):
    (tmp_path / "tokenizer.model").write_bytes(damage((DATA / "tokenizer.model").read_bytes()))
    with pytest.raises(TokenizerError, match="not a SentencePiece model"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"\x18\x02\x20\xcc\x08", b"\x18\x01\x20\xcc\x08", "not BPE"),
        (b"\x12\x00\x20\x00", b"\x12\x00\x20\x01", "normalizes"),
    ],
)
def test_an_unsupported_model_is_an_error(tmp_path, old, new, message):
    data = (DATA / "tokenizer.model").read_bytes()
    assert data.count(old) == 1
    (tmp_path / "tokenizer.model").write_bytes(data.replace(old, new))
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_file(tmp_path)


def test_a_model_without_byte_tokens_is_refused(tmp_path):
    """llama.cpp ends the process at the first character that the vocabulary does not have."""
    byte, normal = b"\x18\x06", b"\x18\x01"
    (tmp_path / "tokenizer.model").write_bytes((DATA / "tokenizer.model").read_bytes().replace(byte, normal))
    with pytest.raises(TokenizerError, match="no byte tokens"):
        Tokenizer.from_file(tmp_path)


def test_a_model_is_padded_to_the_embedding(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((DATA / "tokenizer.model").read_bytes())
    (tmp_path / "config.json").write_text('{"vocab_size": 1200}')
    assert Tokenizer.from_file(tmp_path).vocab_size == 1200
    assert len(tokenizer_metadata(tmp_path)["tokenizer.ggml.scores"]) == 1200


@pytest.mark.parametrize(
    ("legacy", "prefix", "expected"), [(True, None, "always"), (None, None, "first"), (None, False, "")]
)
def test_the_config_says_where_a_space_is_added(tmp_path, legacy, prefix, expected):
    (tmp_path / "tokenizer.model").write_bytes((DATA / "tokenizer.model").read_bytes())
    config = {"legacy": legacy, "add_prefix_space": prefix}
    config = {key: value for key, value in config.items() if value is not None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for ours in (Tokenizer.from_file(tmp_path), Tokenizer.from_gguf(tokenizer_metadata(tmp_path))):
        words = [ours.token_text(token) for token in ours.encode("user<s>user", parse_special=True)]
        starts = [words[0].startswith("▁"), words[words.index("<s>") + 1].startswith("▁")]
        assert starts == {"always": [True, True], "first": [True, False], "": [False, False]}[expected]


@pytest.mark.parametrize("folder", [DATA, None], ids=["sentencepiece", "byte-level"])
def test_a_rebuilt_tokenizer_json_decodes_in_the_library(folder, tmp_path):
    """Programs on a phone decode with it, without sprat."""
    folder = folder or write_byte_level(tmp_path, "deepseek-v3")
    metadata = {key: value for key, value in tokenizer_metadata(folder).items() if "huggingface" not in key}
    vocabulary = Tokenizer.from_gguf(metadata).vocabulary
    library = tokenizers.Tokenizer.from_str(json.dumps(build(vocabulary)))
    for text in ("The capital of France is Paris, déjà vu.", "日本 x\n\n y"):
        encoding = library.encode(text)
        assert encoding.ids[0] == vocabulary.bos_id
        assert library.decode(encoding.ids) == text
