"""The generation loop over a scripted model: finish reasons, text, token counts."""

import threading

import numpy as np
import pytest

from sprat.errors import InputError
from sprat.progress import no_progress
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.options import StopConditions, split_options
from sprat.runtime.generate.results import FinishReason
from sprat.runtime.tokenizer.stream_decoder import StreamDecoder

END = 256  # ids below it are bytes


class Script:
    """A transcript that answers any prompt with the bytes of a text."""

    def __init__(self, answer, capacity=1000, on_extend=lambda tokens: None):
        self.tokens = []
        self.capacity = capacity
        self.calls = []
        self._answer = [*answer.encode(), END] if isinstance(answer, str) else answer
        self._on_extend = on_extend

    @property
    def n_past(self):
        return len(self.tokens)

    def remember(self):
        """Nothing is kept."""

    def write_shared(self):
        """Nothing is written."""

    def forward(self, tokens):
        self._on_extend(tokens)
        self.tokens += tokens
        self.calls.append(len(tokens))
        logits = np.zeros(END + 1, np.float32)
        n_answered = sum(call == 1 for call in self.calls[1:])
        logits[self._answer[n_answered]] = 50
        return logits


class Greedy:
    """A sampler that takes the token with the highest logit."""

    def sample(self, logits, history, allowed):
        assert len(history) > 0
        return int(np.argmax(logits)), -0.5


def generate(script, prompt=(1, 2, 3), on_prefill=no_progress, **conditions):
    return Generation(
        script,
        list(prompt),
        sampler=Greedy(),
        decoder=StreamDecoder(lambda token: bytes([token])),
        eog_ids={END},
        stop_conditions=StopConditions(**conditions),
        on_prefill=on_prefill,
    )


def test_the_end_token_ends_the_answer():
    generation = generate(Script("Paris"))
    pieces = list(generation)
    assert [piece.text for piece in pieces] == ["P", "a", "r", "i", "s", ""]
    assert [piece.token_id for piece in pieces] == [*b"Paris", END]
    assert {piece.logprob for piece in pieces} == {-0.5}
    assert generation.summary.finish_reason == FinishReason.STOP == "stop"
    assert generation.text() == "Paris"


def test_usage_and_timings_count_tokens():
    generation = generate(Script("Paris"))
    generation.text()
    usage, timings = generation.summary.usage, generation.summary.timings
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 6, 9)
    assert (timings.cache_n, timings.prompt_n, timings.predicted_n) == (0, 3, 6)
    assert timings.prompt_per_second == pytest.approx(3e3 / timings.prompt_ms)
    assert timings.predicted_per_second == pytest.approx(6e3 / timings.predicted_ms)


def test_max_tokens_ends_the_answer():
    generation = generate(Script("Paris"), max_tokens=2)
    assert generation.text() == "Pa"
    assert generation.summary.finish_reason == FinishReason.LENGTH == "length"


def test_a_full_context_ends_the_answer():
    generation = generate(Script("Paris", capacity=5))
    assert generation.text() == "Par"  # the last token is sampled, but needs no KV entry
    assert generation.summary.finish_reason == FinishReason.LENGTH


@pytest.mark.parametrize("stop", ["s, F", ["zzz", "s, F", "e."]])
def test_a_stop_string_across_pieces_is_removed(stop):
    generation = generate(Script("Paris, France."), stop=stop)
    assert [piece.text for piece in generation] == ["P", "a", "r", "i", "", "", "", ""]
    assert generation.summary.finish_reason == FinishReason.STOP


def test_text_that_was_only_a_prefix_of_a_stop_string_is_released():
    assert generate(Script("a##b#"), stop=["###"]).text() == "a##b#"
    assert generate(Script("a##b"), stop=["###"], max_tokens=3).text() == "a##"


def test_pieces_hold_whole_characters():
    pieces = list(generate(Script("é€😀x")))
    assert [piece.text for piece in pieces] == ["", "é", "", "", "€", "", "", "", "😀", "x", ""]


def test_a_character_cut_by_max_tokens_becomes_a_replacement_character():
    assert generate(Script("a😀"), max_tokens=3).text() == "a\ufffd"


def test_a_long_prompt_is_processed_in_chunks_and_reported():
    script, seen = Script("x"), []
    generate(script, prompt=[7] * 600, on_prefill=lambda state: seen.append((state.done, state.total))).text()
    assert script.calls[:3] == [256, 256, 88]
    assert seen == [(256, 600), (512, 600), (600, 600)]


def test_cancel_ends_the_answer_before_the_next_token():
    generation = generate(Script("Paris"))
    assert next(generation).text == "P"
    generation.cancel()
    assert list(generation) == []
    assert generation.summary.finish_reason == FinishReason.CANCELLED == "cancelled"


def test_cancel_from_another_thread_works_during_prefill():
    def cancel_in_second_chunk(_tokens):
        if len(script.calls) == 1:
            other = threading.Thread(target=generation.cancel)
            other.start()
            other.join()

    script = Script("x", on_extend=cancel_in_second_chunk)
    generation = generate(script, prompt=[7] * 2000)
    assert list(generation) == []
    assert script.calls == [256, 256]
    assert generation.summary.finish_reason == FinishReason.CANCELLED
    assert generation.summary.timings.prompt_n == 512


def test_a_timeout_ends_the_answer(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sprat.runtime.generate.generation.time.monotonic", lambda: now[0])

    def one_second(_tokens):
        now[0] += 1

    generation = generate(Script("Paris", on_extend=one_second), timeout=2.5)
    assert generation.text() == "Pa"
    assert generation.summary.finish_reason == FinishReason.TIMEOUT == "timeout"


def test_closing_ends_the_answer_and_calls_on_end_once():
    ended = []
    for n_pieces in (0, 2, 6):
        generation = Generation(
            Script("Paris"),
            [1],
            sampler=Greedy(),
            decoder=StreamDecoder(lambda token: bytes([token])),
            eog_ids={END},
            stop_conditions=StopConditions(),
            on_end=lambda n=n_pieces: ended.append(n),
        )
        for _ in range(n_pieces):
            next(generation)
        generation.close()
        generation.close()
        assert generation.summary.usage.completion_tokens == n_pieces
    assert ended == [0, 2, 6]


def test_the_summary_is_an_error_before_the_end():
    with pytest.raises(RuntimeError, match="iterate to its end"):
        _ = generate(Script("x")).summary


def test_an_error_of_the_backend_ends_the_answer():
    def fail(_tokens):
        raise RuntimeError("power cut")

    generation = generate(Script("x", on_extend=fail))
    with pytest.raises(RuntimeError, match="power cut"):
        next(generation)
    assert generation.summary.usage.completion_tokens == 0


@pytest.mark.parametrize(
    "conditions",
    [
        {"max_tokens": 0},
        {"max_tokens": -3},
        {"max_tokens": True},
        {"max_tokens": float("inf")},
        {"timeout": 0},
        {"timeout": True},
        {"timeout": float("nan")},
        {"stop": ["a", ""]},
        {"stop": [5]},
        {"stop": None},
        {"stop": b"x"},
        {"stop": ["a", None]},
    ],
)
def test_stop_conditions_out_of_range_are_an_error(conditions):
    with pytest.raises(InputError, match=f"{next(iter(conditions))}.*expected"):
        StopConditions(**conditions)


def test_options_are_split_into_sampling_and_stop_conditions():
    options = {"temperature": 0.0, "stop": "x", "max_tokens": 3, "on_prefill": no_progress}
    sampling, conditions = split_options(options)
    assert (sampling.temperature, conditions.stop, conditions.max_tokens) == (0.0, ("x",), 3)


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [("temprature", "temperature"), ("max_new_tokens", "max_tokens"), ("repetition_penalty", "repeat_penalty")],
)
def test_an_unknown_option_names_the_nearest_one(unknown, nearest):
    with pytest.raises(TypeError, match=f"unknown keyword '{unknown}'; did you mean '{nearest}'"):
        split_options({unknown: 1})
