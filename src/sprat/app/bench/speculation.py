"""``sprat bench --speculate``: what speculative decoding does to the speed of answers that repeat themselves or not."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass

from sprat.app.load import load
from sprat.boundary import public_call
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.runtime.chat.completions import Message
from sprat.runtime.engine import Engine
from sprat.runtime.generate.results import Timings
from sprat.runtime.loading.options import Speculate

__all__ = ["SpeculationSpeed", "bench_speculation"]

_MAX_TOKENS = 128
_TEXT = (
    "The station sends the temperature, the humidity and the pressure every ten minutes. If the pressure falls by more "
    "than three hectopascals within an hour, the station sends a warning to the harbour."
)
_PROMPTS = {
    "commands": (
        "lights off in the kitchen",
        "set the bedroom to 21 degrees",
        "lights on in the hall",
        "open the blinds in the living room",
        "turn off the fan in the bathroom",
        "set the office to 19 degrees",
    ),
    "json": (
        'Write one JSON object like {"device": "light", "room": "attic", "state": "on"} for each: kitchen light off, '
        "cellar fan on, hall light on, office heater off, garage door on, bathroom fan off.",
    ),
    "quotes": (f"Repeat this text word for word: {_TEXT}", f"Correct the spelling of this text: {_TEXT}"),
    "prose": ("Write a short story about a lighthouse keeper.", "Explain why the sky is blue."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationSpeed:
    """The speed of one kind of answers; each request is answered with and without drafts in turn.

    Attributes:
        answers: ``"commands"``, ``"json"``, ``"quotes"`` or ``"prose"``.
        tokens: generated with drafts, in all repetitions.
        plain_per_second: tokens without drafts.
        per_second: with drafts.
        ratio: the median of pairs.
        draft_n: tokens that were guessed and checked.
        draft_n_accepted: of them, those that became part of the answer.
    """

    answers: str
    tokens: int
    plain_per_second: float
    per_second: float
    ratio: float
    draft_n: int
    draft_n_accepted: int


@public_call
def bench_speculation(
    model: str | os.PathLike[str],
    *,
    backend: str = "auto",
    speculate: Speculate = "auto",
    repetitions: int = 5,
    progress: ReportProgress = no_progress,
) -> tuple[SpeculationSpeed, ...]:
    """Measure greedy answers of ``model`` with ``speculate`` against those with ``"off"``.

    Args:
        model: a bundle or a model file.
        backend: as for :func:`sprat.load`.
        speculate: ``"auto"``, or the number of tokens that a pass may check.
        repetitions: of every request, after one that warms up.
        progress: in requests.

    Raises:
        InputError: the model cannot be loaded; its subclasses name the kinds.
    """
    n, done, found = (repetitions + 1) * sum(map(len, _PROMPTS.values())), 0, []
    with (
        load(model, backend=backend, prefix_cache=False, speculate=speculate) as drafting,
        load(model, backend=backend, prefix_cache=False, speculate="off") as plain,
    ):
        for answers, prompts in _PROMPTS.items():
            pairs = []
            for repetition in range(repetitions + 1):
                for prompt in prompts:
                    pair = _pair(drafting, plain, prompt, drafts_first=repetition % 2 == 0)
                    done += 1
                    progress(Progress(done, n, f"{answers}: {done} of {n} requests"))
                    pairs += [pair] if repetition else []
            found.append(_speed(answers, pairs))
    return tuple(found)


def _pair(drafting: Engine, plain: Engine, prompt: str, *, drafts_first: bool) -> tuple[Timings, Timings]:
    """Timings of one request with and without drafts."""
    engines = (drafting, plain) if drafts_first else (plain, drafting)
    timings = [_timings(engine, prompt) for engine in engines]
    return (timings[0], timings[1]) if drafts_first else (timings[1], timings[0])


def _timings(engine: Engine, prompt: str) -> Timings:
    if engine.frontend.template is None:
        generation = engine.generate(prompt, max_tokens=_MAX_TOKENS, temperature=0.0)
        generation.text()
        return generation.summary.timings
    message = Message(role="user", content=prompt)
    return Timings(**engine.chat([message], max_tokens=_MAX_TOKENS, temperature=0.0)["timings"])


def _speed(answers: str, pairs: list[tuple[Timings, Timings]]) -> SpeculationSpeed:
    drafting, plain = zip(*pairs, strict=True)
    ratios = [_per_second((with_drafts,)) / _per_second((without,)) for with_drafts, without in pairs]
    return SpeculationSpeed(
        answers=answers,
        tokens=sum(timings.predicted_n for timings in drafting),
        plain_per_second=_per_second(plain),
        per_second=_per_second(drafting),
        ratio=statistics.median(ratios),
        draft_n=sum(timings.draft_n for timings in drafting),
        draft_n_accepted=sum(timings.draft_n_accepted for timings in drafting),
    )


def _per_second(timings: tuple[Timings, ...]) -> float:
    return 1e3 * sum(each.predicted_n for each in timings) / sum(each.predicted_ms for each in timings)
