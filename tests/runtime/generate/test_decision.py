"""Decisions: exact log probabilities of given answers, against scoring each of them alone."""

import math

import numpy as np
import pytest
from scripted_model import ASSISTANT, EOS, random_logits, saying, scripted_engine
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.errors import BackendError, InputError, PromptError

QUESTION = [{"role": "user", "content": "Where?"}]


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits.astype(np.float64))


def by_hand(prompt, option, *, with_end):
    """The log probability of the bytes of ``option``, one after the other."""
    tokens, total = list(prompt), 0.0
    for token in [*option.encode(), *([EOS] if with_end else [])]:
        total += log_softmax(random_logits(tokens))[token]
        tokens.append(token)
    return total


@pytest.mark.parametrize("options", [["on", "off", "dim"], ["a", "b"], ["open it", "open that", "close"], ["é", "è"]])
def test_log_probabilities_are_those_of_the_tokens(options):
    decision = scripted_engine(random_logits).decide("x", options)
    expected = {option: by_hand([256, *b"x"], option, with_end=False) for option in options}
    assert decision.logprobs == pytest.approx(expected)
    assert decision.mass == pytest.approx(sum(map(math.exp, expected.values())))
    assert sum(decision.values()) == pytest.approx(1)
    assert list(decision.values()) == sorted(decision.values(), reverse=True)
    assert decision.best == max(expected, key=expected.get) == next(iter(decision))
    assert decision[options[0]] == pytest.approx(math.exp(expected[options[0]]) / decision.mass)


def test_the_end_counts_where_an_option_begins_another():
    options = ["on", "on and off", "off"]
    decision = scripted_engine(random_logits).decide("x", options)
    assert decision.logprobs == pytest.approx(
        {option: by_hand([256, *b"x"], option, with_end=True) for option in options}
    )


def test_the_prompt_and_shared_tokens_are_processed_once():
    engine = scripted_engine(random_logits)
    engine.decide("a prompt", ["open it", "open that", "x"])
    (stream,) = engine.backend.streams
    tokens = [token for call in stream.processed for token in call]
    assert len(tokens) == len("a prompt") + 1 + len("open ") + len("i") + len("tha")
    assert stream.closed


def test_single_tokens_take_one_prefill():
    engine = scripted_engine(random_logits)
    engine.decide("a prompt", ["a", "b", "c"])
    assert engine.backend.streams[0].processed == [[256, *b"a prompt"]]


def test_messages_are_rendered_and_the_answer_of_the_model_wins():
    engine = scripted_engine(saying("Paris"))
    assert engine.decide(QUESTION, ["Paris", "London"]).best == "Paris"
    assert engine.backend.streams[0].processed[0][-1] == ASSISTANT


def test_reasoning_that_the_prompt_opens_is_closed():
    template = "{{ messages[0].content }}<|assistant|><think>\n"
    engine = scripted_engine(random_logits, template=template)
    engine.decide(QUESTION, ["a", "b"])
    tokens = engine.backend.streams[0].processed[0]
    assert tokens[-18:] == [*b"<think>\n</think>\n\n"]


def test_a_temperature_makes_a_decision_less_certain():
    engine = scripted_engine(random_logits)
    cold, warm = (engine.decide("x", ["a", "b"], temperature=t) for t in (0.5, 3.0))
    assert cold[cold.best] > warm[warm.best] > 0.5
    ratio = math.log(cold["a"] / cold["b"]) / math.log(warm["a"] / warm["b"])
    assert ratio == pytest.approx(6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["a"], "expected a list of at least 2 texts"),
        ("ab", "expected a list"),
        (["a", ""], "none of them empty"),
        (["a", "a"], "expected different texts"),
        (["a", 5], "expected different texts"),
        (None, "expected a list"),
    ],
)
def test_wrong_options_are_an_error(options, reason):
    with pytest.raises(InputError, match=reason):
        scripted_engine(random_logits).decide("x", options)


@pytest.mark.parametrize("temperature", [0, -1, math.inf, "1", True])
def test_a_wrong_temperature_is_an_error(temperature):
    with pytest.raises(InputError, match=r"temperature is .*expected a number between 1e-30 and 1e\+30"):
        scripted_engine(random_logits).decide("x", ["a", "b"], temperature=temperature)


def test_a_prompt_that_leaves_no_room_for_an_option_is_an_error():
    with pytest.raises(PromptError, match="the context holds 8"):
        scripted_engine(random_logits, context=8).decide("123456", ["ab", "cd"])


def test_damaged_weights_are_an_error():
    with pytest.raises(BackendError, match="weights are damaged"):
        scripted_engine(lambda _tokens: np.full(260, np.nan, np.float32)).decide("x", ["a", "b"])


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_transformers_gives_the_same_log_probabilities(tmp_path, architecture):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers", minversion="5.0")
    source = write_checkpoint(tmp_path / "tiny", architecture)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    options = [" needs a cloud", " needs patience", " sleeps"]
    with sprat.load(source) as engine:
        decision = engine.decide("A device at the edge", options)
        prompt, encoded = engine.encode("A device at the edge"), engine.frontend.encode_options(options)
    for option, tokens in encoded.items():
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
        scores = [float(logits[len(prompt) - 1 + index, token]) for index, token in enumerate(tokens)]
        assert decision.logprobs[option] == pytest.approx(sum(scores), abs=2e-3)
