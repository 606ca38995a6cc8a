import json

import numpy as np
import pytest
from tiny_vocabulary import BOS, EOS, USER, write_byte_level

from sprat.errors import TokenizerError
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.runtime.tokenizer.pretokenizers import PRE_TOKENIZERS
from sprat.runtime.tokenizer.vocabulary import TokenType


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_byte_level(tmp_path_factory.mktemp("deepseek-v3"), "deepseek-v3")


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the trained files to modify."""
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(path, change):
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def test_the_keys_of_a_byte_level_tokenizer(trained):
    metadata = tokenizer_metadata(trained)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert metadata["tokenizer.ggml.model"] == "gpt2"
    assert metadata["tokenizer.ggml.pre"] == "deepseek-v3"
    assert (len(tokens), types.shape, types.dtype) == (1280, (1280,), np.int32)
    assert metadata["tokenizer.ggml.bos_token_id"] == tokens.index(BOS) == 1200
    assert metadata["tokenizer.ggml.eos_token_id"] == tokens.index(EOS) == 1201
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.add_space_prefix"] is False
    assert json.loads(metadata["tokenizer.huggingface.json"])["model"]["type"] == "BPE"
    assert "tokenizer.ggml.scores" not in metadata
    assert "tokenizer.chat_template" not in metadata


def test_the_type_of_each_token(trained):
    metadata = tokenizer_metadata(trained)
    kind = dict(zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"].tolist(), strict=True))
    assert kind[BOS] == kind[EOS] == TokenType.CONTROL
    assert kind[USER] == TokenType.CONTROL  # its file declares an ordinary added token
    assert kind["<think>"] == kind["</think>"] == TokenType.USER_DEFINED
    assert kind["Ġ"] == TokenType.NORMAL
    assert kind["[PAD1206]"] == kind["[PAD1279]"] == TokenType.UNUSED


@pytest.mark.parametrize("name", [row.name for row in PRE_TOKENIZERS])
def test_each_pre_tokenizer_has_llamacpps_name(tmp_path, name):
    metadata = tokenizer_metadata(write_byte_level(tmp_path, name))
    # some names share one regex and differ by a token of the model; every tokenizer of this test has DeepSeek's BOS
    same_steps = {"qwen2": "deepseek-r1-qwen", "gigachat": "gpt-2", "kanana2": "gpt-4o"}
    assert metadata["tokenizer.ggml.pre"] == same_steps.get(name, name)


def test_merges_are_written_as_strings_with_encoded_spaces(folder):
    def change(document):
        document["model"]["merges"][0] = ["a", "b"]
        document["model"]["vocab"]["ab"] = 1210

    edit(folder / "tokenizer.json", change)
    merges = tokenizer_metadata(folder)["tokenizer.ggml.merges"]
    assert merges[0] == "a b"
    assert all(merge.count(" ") == 1 for merge in merges)


def test_merges_given_as_strings_are_unchanged(folder):
    before = tokenizer_metadata(folder)["tokenizer.ggml.merges"]

    def change(document):
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]

    edit(folder / "tokenizer.json", change)
    assert tokenizer_metadata(folder)["tokenizer.ggml.merges"] == before


def test_additional_end_tokens_use_the_keys_eot_and_eom(folder):
    def change(document):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        document["added_tokens"] += [
            {"id": 1206, "content": "<|eom_id|>", **flags},
            {"id": 1207, "content": "<|eot_id|>", **flags},
        ]

    edit(folder / "tokenizer.json", change)
    metadata = tokenizer_metadata(folder)
    assert metadata["tokenizer.ggml.eos_token_id"] == 1201
    assert metadata["tokenizer.ggml.eom_token_id"] == 1206
    assert metadata["tokenizer.ggml.eot_token_id"] == 1207


def test_special_tokens_from_the_model_config(folder):
    edit(folder / "tokenizer_config.json", lambda config: (config.pop("bos_token"), config.pop("eos_token")))
    edit(
        folder / "config.json",
        lambda config: config.update(bos_token_id=1200, eos_token_id=[1201, 1203, 5000], pad_token_id=-1),
    )
    metadata = tokenizer_metadata(folder)
    assert (metadata["tokenizer.ggml.bos_token_id"], metadata["tokenizer.ggml.eos_token_id"]) == (1200, 1201)
    assert metadata["tokenizer.ggml.eot_token_id"] == 1203
    assert "tokenizer.ggml.padding_token_id" not in metadata


@pytest.mark.parametrize("where", ["file", "config", "list"])
def test_the_chat_template_is_found(folder, where):
    if where == "file":
        (folder / "chat_template.jinja").write_text("{{ messages }}\n")
        edit(folder / "tokenizer_config.json", lambda config: config.update(chat_template="older"))
    entry = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "{{ messages }}\n"}]
    if where != "file":
        value = entry if where == "list" else entry[1]["template"]
        edit(folder / "tokenizer_config.json", lambda config: config.update(chat_template=value))
    assert tokenizer_metadata(folder)["tokenizer.chat_template"] == "{{ messages }}\n"


def test_more_tokens_than_embedding_rows_is_an_error(folder):
    edit(folder / "config.json", lambda config: config.update(vocab_size=1000))
    with pytest.raises(TokenizerError, match=r"206 tokens have no row .* has 1000 .* with id 1000 in tokenizer\.json"):
        tokenizer_metadata(folder)


CHANGES = {
    "another pre-tokenizer": (
        lambda d: d.update(pre_tokenizer={"type": "Whitespace"}),
        "the pre-tokenizer has no name in llama.cpp",
    ),
    "no pre-tokenizer": (lambda d: d.update(pre_tokenizer=None), "the pre-tokenizer has no name in llama.cpp"),
    "a malformed pre-tokenizer": (lambda d: d.update(pre_tokenizer={"type": "Sequence"}), "not a tokenizer"),
    "text in lower case": (lambda d: d.update(normalizer={"type": "Lowercase"}), "the normalizer has the step"),
    "words that are taken whole": (
        lambda d: d["model"].update(ignore_merges=True, merges=d["model"]["merges"][:99]),
        "cannot express this",
    ),
    "another model": (lambda d: d["model"].update(type="WordPiece"), "type 'WordPiece', expected 'BPE'"),
    "no vocabulary": (lambda d: d["model"].pop("vocab"), "not a tokenizer"),
    "an added token without an id": (lambda d: d["added_tokens"].append({"content": "x"}), "not a tokenizer"),
    "a huge id": (lambda d: d["added_tokens"][0].update(id=10**12), "with id 1000000000000 in tokenizer.json"),
    "two ids of one token": (lambda d: d["added_tokens"][2].update(content="Ġ", id=1210), "more than once: 'Ġ'"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_tokenizer_that_gguf_cannot_express_is_an_error(folder, change, message):
    edit(folder / "tokenizer.json", change)
    with pytest.raises(TokenizerError, match=message):
        tokenizer_metadata(folder)


def test_a_folder_without_a_tokenizer_says_how_to_get_one(tmp_path):
    with pytest.raises(TokenizerError, match="save_pretrained"):
        tokenizer_metadata(tmp_path)
