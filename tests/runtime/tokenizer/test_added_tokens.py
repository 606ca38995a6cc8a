"""Added tokens by every file that names them; transformers is the judge."""

import json
from pathlib import Path

import pytest
from tiny_checkpoint import write_tokenizer

from sprat.errors import TokenizerError
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.hf_files import TokenizerFiles
from sprat.runtime.tokenizer.tokenizer import Tokenizer

SPM = Path(__file__).parents[2] / "data" / "sentencepiece" / "tokenizer.model"
N_SPM, N_JSON, N_ROWS = 1100, 351, 1200


def flags(text, special=True, **changes):
    off = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": text, "special": special, **off, **changes}


TOKENS = [
    flags("<tool_x>", special=False),
    flags("<|im_start|>"),
    flags("<|im_end|>"),
    flags("<right>", rstrip=True),
    flags("<left>", lstrip=True),
    flags("word", single_word=True),
    flags("<both>", lstrip=True, rstrip=True),
    flags("<text>", special=False, lstrip=True, rstrip=True),
    flags("<normal>", special=False, normalized=True),
]
TEXTS = [
    "say <tool_x> now",
    "<|im_start|>user\nhi<|im_end|>\n",
    "a <right>  b",
    "a  <left> b",
    "aword b word word xword word-word word_",
    "<tool_x><tool_x>",
    "a  <both>  <both> b<both>",
    "a  <text>  <text> b<text>",
    "\u00c9<normal> e\u0301 <normal>",
    "<right>",
    "  <left>  ",
]


def edit(path, **changes):
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(document | changes), encoding="utf-8")


def tokenizer_json(folder):
    """A tokenizer.json of 351 tokens; returns the next id."""
    write_tokenizer(folder, "qwen2", 512)
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) == N_JSON
    return N_JSON


def sentencepiece(folder):
    (folder / "tokenizer.model").write_bytes(SPM.read_bytes())
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    edit(folder / "tokenizer_config.json", add_bos_token=True, legacy=False, **names)
    return N_SPM


def by_decoder(folder, first):
    entries = {str(first + n): token for n, token in enumerate(TOKENS)}
    edit(folder / "tokenizer_config.json", added_tokens_decoder=entries)


def by_file(folder, first):
    edit(folder / "added_tokens.json", **{token["content"]: first + n for n, token in enumerate(TOKENS)})


def by_file_and_config(folder, first):
    by_file(folder, first)
    edit(folder / "tokenizer_config.json", additional_special_tokens=["<tool_x>", "<right>"])


def by_file_and_map(folder, first):
    by_file(folder, first)
    edit(folder / "special_tokens_map.json", additional_special_tokens=["<tool_x>", "<right>"])


def by_tokenizer_json(folder, first):
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    edit(folder / "tokenizer.json", added_tokens=added + [{"id": first + n, **t} for n, t in enumerate(TOKENS)])


def by_both(folder, first):
    """Three of them without their flags in tokenizer.json, all in added_tokens_decoder."""
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    plain = [{"id": first + n, **flags(token["content"])} for n, token in enumerate(TOKENS[:4])]
    edit(folder / "tokenizer.json", added_tokens=added + plain)
    by_decoder(folder, first)


COMBINATIONS = [
    (tokenizer_json, by_decoder),
    (tokenizer_json, by_file),
    (tokenizer_json, by_file_and_config),
    (tokenizer_json, by_file_and_map),
    (tokenizer_json, by_tokenizer_json),
    (tokenizer_json, by_both),
    (sentencepiece, by_decoder),
    (sentencepiece, by_file),
    (sentencepiece, by_file_and_config),
]


def name(part):
    return part.__name__


@pytest.mark.slow
@pytest.mark.parametrize(("vocabulary", "add"), COMBINATIONS, ids=name)
def test_ids_equal_those_of_transformers(tmp_path, vocabulary, add):
    transformers = pytest.importorskip("transformers")
    add(tmp_path, vocabulary(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": N_ROWS, "model_type": "llama"}))
    kind = transformers.LlamaTokenizer if vocabulary is sentencepiece else transformers.PreTrainedTokenizerFast
    judge = kind.from_pretrained(tmp_path)
    for ours in (Tokenizer.from_file(tmp_path), Tokenizer.from_gguf(tokenizer_metadata(tmp_path))):
        for text in TEXTS:
            if vocabulary is sentencepiece and text.startswith(" "):
                continue  # sentencepiece and llama.cpp add the space before a space, too; transformers 5 does not
            expected = judge.encode(text, add_special_tokens=False)
            assert ours.encode(text, parse_special=True) == expected, repr(text)


@pytest.mark.parametrize(("vocabulary", "add"), COMBINATIONS, ids=name)
def test_added_tokens_are_tokens(tmp_path, vocabulary, add):
    first = vocabulary(tmp_path)
    add(tmp_path, first)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": N_ROWS}))
    for ours in (Tokenizer.from_file(tmp_path), Tokenizer.from_gguf(tokenizer_metadata(tmp_path))):
        assert first in ours.encode("say <tool_x> now", parse_special=True)
        assert ours.encode("<|im_start|>", parse_special=True) == [first + 1]
        assert first + 2 in ours.eog_ids  # <|im_end|>, by its name


@pytest.mark.parametrize("vocabulary", [tokenizer_json, sentencepiece], ids=name)
@pytest.mark.parametrize("where", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_named_end_token_without_an_id_gets_the_next_one(tmp_path, vocabulary, where):
    first = vocabulary(tmp_path)
    if where == "special_tokens_map.json":
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        del config["eos_token"]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    edit(tmp_path / where, eos_token={"content": "<|done|>"})
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": N_ROWS}))
    for ours in (Tokenizer.from_file(tmp_path), Tokenizer.from_gguf(tokenizer_metadata(tmp_path))):
        assert ours.encode("<|done|>", parse_special=True) == [first]
        assert first in ours.eog_ids


NAMED = {
    "a key of the config": {"image_token": "<image>"},
    "names and texts": {"extra_special_tokens": {"image_token": "<image>"}},
    "as transformers 5 saves them": {"model_specific_special_tokens": {"picture": "<image>"}},
    "texts": {"extra_special_tokens": ["<image>"]},
}


@pytest.mark.parametrize("config", NAMED.values(), ids=NAMED)
def test_a_named_special_token_without_an_id_gets_the_next_one(tmp_path, config):
    first = tokenizer_json(tmp_path)
    edit(tmp_path / "tokenizer_config.json", **config)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": N_ROWS}))
    ours = Tokenizer.from_gguf(tokenizer_metadata(tmp_path))
    ids = ours.encode("image_token<image>", parse_special=True)
    assert ids[-1] == first
    assert ours.decode(ids) == "image_token"


@pytest.mark.slow
@pytest.mark.parametrize("config", NAMED.values(), ids=NAMED)
def test_named_special_tokens_are_those_of_transformers(tmp_path, config):
    transformers = pytest.importorskip("transformers", minversion="5.0")
    tokenizer_json(tmp_path)
    edit(tmp_path / "tokenizer_config.json", **config)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": N_ROWS, "model_type": "llama"}))
    judge, files = transformers.AutoTokenizer.from_pretrained(tmp_path), TokenizerFiles(tmp_path)
    assert Tokenizer.from_files(files).encode("<image>", parse_special=True) == judge.encode("<image>")
    assert files.special_names() == judge.special_tokens_map


@pytest.mark.parametrize(("stored", "decoder"), [(True, False), (False, True), (None, False)])
def test_a_token_is_special_if_one_file_says_so_or_it_ends_answers(tmp_path, stored, decoder):
    tokenizer_json(tmp_path)
    if stored is not None:
        added = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
        entry = {"id": N_JSON, **flags("<done>", special=stored)}
        edit(tmp_path / "tokenizer.json", added_tokens=[*added, entry])
    edit(tmp_path / "tokenizer_config.json", added_tokens_decoder={N_JSON: flags("<done>", special=decoder)})
    if stored is None:
        edit(tmp_path / "tokenizer_config.json", eos_token="<done>")
    ours = Tokenizer.from_file(tmp_path)
    assert ours.decode([N_JSON]) == ""
    assert N_JSON not in ours.encode("<done>")


@pytest.mark.parametrize("ids", [{0: 1150, 1: 1160}, {0: 1151}, {1: 1150, 0: 1149}])
def test_ids_may_have_gaps(tmp_path, ids):
    tokenizer_json(tmp_path)
    entries = {str(index): TOKENS[n] for n, index in ids.items()}
    edit(tmp_path / "tokenizer_config.json", added_tokens_decoder=entries)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": N_ROWS}))
    for ours in (Tokenizer.from_file(tmp_path), Tokenizer.from_gguf(tokenizer_metadata(tmp_path))):
        for n, index in ids.items():
            assert ours.encode(TOKENS[n]["content"], parse_special=True) == [index]
            assert ours.token_text(index) == TOKENS[n]["content"]


REFUSED = {
    "an id beyond the embedding": (by_decoder, {"vocab_size": N_JSON + 3}, r"6 tokens have no row .* in tokenizer_con"),
    "the same in the other file": (by_file, {"vocab_size": N_JSON}, r"'<tool_x>' with id 351 in added_tokens\.json"),
}


@pytest.mark.parametrize(("add", "config", "message"), REFUSED.values(), ids=REFUSED)
def test_a_token_without_a_row_is_an_error_that_names_file_and_token(tmp_path, add, config, message):
    add(tmp_path, tokenizer_json(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=message):
        tokenizer_metadata(tmp_path)


CONFLICTS = {
    "an id of the vocabulary": ({"<x>": 20}, {}, "'<x>' has id 20, which is"),
    "two texts of one id": (
        {"<x>": 400},
        {"400": flags("<y>")},
        "'<x>' has id 400, which is '<y>' in tokenizer_config",
    ),
    "two ids of one text": ({"<x>": 400}, {"401": flags("<x>")}, "'<x>' has id 400, but 401 in tokenizer_config"),
    "a negative id": ({"<x>": -1}, {}, "added token '<x>' with id -1"),
    "an id that is text": ({"<x>": "4"}, {}, "added token '<x>' with id '4'"),
    "an empty text": ({"": 400}, {}, "added token '' with id 400"),
    "a key that is no id": ({}, {"x": flags("<x>")}, "added token '<x>' with id None"),
    "a token without text": ({}, {"400": {"special": True}}, "added token None with id 400"),
    "an entry of another type": ({}, {"400": "<x>"}, "not a tokenizer"),
}


@pytest.mark.parametrize(("ids", "decoder", "message"), CONFLICTS.values(), ids=CONFLICTS)
def test_files_that_contradict_each_other_are_an_error(tmp_path, ids, decoder, message):
    tokenizer_json(tmp_path)
    edit(tmp_path / "added_tokens.json", **ids)
    edit(tmp_path / "tokenizer_config.json", added_tokens_decoder=decoder)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_file(tmp_path)


def test_two_tokens_of_one_id_are_an_error(tmp_path):
    tokenizer_json(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["model"]["vocab"]["zz"] = 20
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(TokenizerError, match="and 'zz' both have id 20"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize("added", ["absent", None, []])
@pytest.mark.parametrize("bom", [False, True], ids=["plain", "BOM"])
@pytest.mark.parametrize("normalizer", [{"type": "NFC"}, None, {"type": "Sequence", "normalizers": []}], ids=str)
def test_a_tokenizer_json_that_loads_at_export_loads_from_the_gguf(tmp_path, added, bom, normalizer):
    tokenizer_json(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text()) | {"normalizer": normalizer}
    if added == "absent":
        del document["added_tokens"]
    else:
        document["added_tokens"] = added
    text = json.dumps(document, ensure_ascii=False).encode()
    (tmp_path / "tokenizer.json").write_bytes(b"\xef\xbb\xbf" * bom + text)
    metadata = tokenizer_metadata(tmp_path)
    assert not metadata["tokenizer.huggingface.json"].startswith("\ufeff")
    ours = Tokenizer.from_gguf(metadata)
    assert ours.encode("cafe\u0301", parse_special=True) == Tokenizer.from_file(tmp_path).encode("cafe\u0301")
    assert ours.decode(ours.encode("cafe\u0301")) == ("caf\u00e9" if normalizer == {"type": "NFC"} else "cafe\u0301")
