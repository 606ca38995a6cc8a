"""The packaged student: its dimensions, its answers, and its logits, which equal those of transformers."""

import json
from pathlib import Path

import numpy as np
import pytest

from sprat import demo
from sprat.app.load import load

GOLDEN = Path(__file__).with_name("golden.npz")
TOLERANCE = 2e-4  # of logits between about -20 and 30, float32 on both sides


@pytest.fixture(scope="module")
def engine():
    with load("demo") as engine:
        yield engine


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("index", [0, 1])
def test_tokens_and_logits_are_those_of_transformers(engine, golden, index):
    prompt = engine.encode_chat([{"role": "user", "content": str(golden[f"prompt_{index}"])}])
    assert list(prompt.tokens) == golden[f"tokens_{index}"].tolist()
    stream = engine.backend.new_stream(len(prompt.tokens))
    expected = golden[f"logits_{index}"]  # of the last few tokens
    logits = stream.forward_all(prompt.tokens)[-len(expected) :]
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)


def test_it_has_the_architecture_of_v2_lite_and_is_small():
    config = json.loads((demo.path() / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV2ForCausalLM"]
    assert config["n_routed_experts"] >= 24
    assert config["num_experts_per_tok"] >= 4
    assert config["hidden_size"] % 256 == 0
    assert config["moe_intermediate_size"] % 32 == 0
    assert config["moe_intermediate_size"] % 256 != 0
    assert config["rope_scaling"]["type"] == "yarn"
    assert (demo.path() / "model.safetensors").stat().st_size <= 40e6


@pytest.mark.slow
def test_it_reasons_before_it_answers(engine):
    question = {"role": "user", "content": "What is 347 + 285?"}
    message = engine.chat([question], temperature=0.0, max_tokens=100)["choices"][0]["message"]
    assert message["reasoning_content"].startswith("347+285\n7+5+0=12")
    assert message["content"] == "632"


@pytest.mark.slow
def test_it_turns_a_command_into_json(engine):
    question = {"role": "user", "content": "Turn off the kitchen light."}
    message = engine.chat([question], temperature=0.0, max_tokens=100)["choices"][0]["message"]
    assert json.loads(message["content"]) == {
        "device": "light",
        "room": "kitchen",
        "action": "off",
        "value": None,
        "unit": None,
    }
