"""End tokens that a config names and that no token is: a warning, not silence and no error."""

import json

import pytest
from tiny_checkpoint import VOCAB_SIZE, write_checkpoint

from sprat.export.inspection import inspect
from sprat.export.source.recognize.end_tokens import end_token_warnings


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", [-1, 10**10, VOCAB_SIZE, [1, -1], [-1, VOCAB_SIZE]])
def test_an_end_token_that_no_token_is_is_a_warning(tmp_path, name, value):
    tmp_path = write_checkpoint(tmp_path / "model", "qwen2")
    path = tmp_path / name
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | {"eos_token_id": value}))
    warnings = list(end_token_warnings(tmp_path, VOCAB_SIZE))
    assert [warning for warning in warnings if warning.startswith(f"eos_token_id of {name}")] == warnings != []
    assert warnings[0] in inspect(tmp_path).notes


@pytest.mark.parametrize("value", [None, 0, VOCAB_SIZE - 1, [1, 2]])
def test_end_tokens_and_padding_of_minus_one_are_none(tmp_path, value):
    tmp_path = write_checkpoint(tmp_path / "model", "qwen2")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": value, "pad_token_id": -1}))
    assert list(end_token_warnings(tmp_path, VOCAB_SIZE)) == []


def test_what_has_no_tokenizer_has_no_warning(tmp_path):
    assert list(end_token_warnings(tmp_path, 10)) == list(end_token_warnings(tmp_path / "model.gguf", 10)) == []
