"""Smart-home commands in spoken English to JSON objects.

**This is the file to replace** to train a student for other devices: keep `problems` and `is_correct`, and let
`problems` yield your sentences with your answers. The rest of the recipe does not depend on what a command is.

**Prompts** are one sentence, in spoken English: "Could you dim the bedroom light to 40 percent in ten minutes?"
**The answer** is one JSON object on one line, keys always in this order, without spaces::

    {"device":"light","room":"bedroom","action":"set","value":40,"unit":"percent","delay":"10m"}

* `device`, `room`: a name from `home_phrases.py`; `room` is null if none is named, and ``"all"`` for every room.
* `action`: on, off, open, close, lock, unlock, start, stop, pause, set, increase, decrease.
* `value`, `unit`: a number with ``percent`` or ``celsius``, a colour with ``color``, or null for both.
* `delay`: absent, or a number with ``s``, ``m`` or ``h``.

A command is held out by its meaning: if "kitchen, light, set, 40 percent" is held out, it is not trained on in any
phrasing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from sprat.demo.tasks import home_phrases
from sprat.demo.tasks.home_intents import INTENTS, Intent
from sprat.demo.tasks.split import Problem, Split, split_of

__all__ = ["Command", "is_correct", "is_valid", "problems"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The meaning of a sentence."""

    device: str
    room: str | None
    action: str
    value: int | str | None = None
    unit: str | None = None
    delay: str | None = None

    def to_json(self) -> str:
        """The command as the JSON text that is the right answer.

        >>> Command(device="fan", room=None, action="on").to_json()
        '{"device":"fan","room":null,"action":"on","value":null,"unit":null}'
        """
        fields = {key: getattr(self, key) for key in ("device", "room", "action", "value", "unit")}
        if self.delay is not None:
            fields["delay"] = self.delay
        return json.dumps(fields, separators=(",", ":"))


def problems(split: Split, *, seed: int = 0) -> Iterator[Problem]:
    """An endless stream of commands of `split`; the same seed gives the same stream."""
    rng = random.Random(f"home/{split.value}/{seed}")
    wanted = Split.TRAIN if split is Split.TRAIN else Split.HELD_OUT
    intents = [intent for intent in INTENTS for _ in range(intent.weight)]
    while True:
        intent = rng.choice(intents)
        command, sentence = _draw(rng, intent, unseen=split is Split.UNSEEN)
        if split_of(command.to_json()) is wanted:
            yield Problem(prompt=sentence, answer=command.to_json(), kind=intent.name)


def is_correct(problem: Problem, answer: str) -> bool:
    """Whether `answer` is exactly the expected text; surrounding space is ignored."""
    return answer.strip() == problem.answer


def is_valid(answer: str) -> bool:
    """Whether `answer` is one JSON object with all required keys."""
    try:
        fields = json.loads(answer)
    except ValueError:
        return False
    return isinstance(fields, dict) and {"device", "room", "action", "value", "unit"} <= set(fields)


def _draw(rng: random.Random, intent: Intent, *, unseen: bool) -> tuple[Command, str]:
    device = rng.choice(intent.devices)
    room, place = _draw_room(rng, device)
    value, spoken_value = home_phrases.draw_value(rng, intent)
    delay, spoken_delay = home_phrases.draw_delay(rng) if rng.random() < 0.25 else (None, "")
    command = Command(
        device=device,
        room=room,
        action=intent.action,
        value=value,
        unit=intent.unit if value is not None else None,
        delay=delay,
    )
    templates = intent.unseen if unseen else intent.templates
    template = rng.choice(templates)
    core = template.format(device=_name(rng, device, room, place), value=spoken_value)
    opening, closing = _draw_politeness(rng, request=home_phrases.is_request(template), unseen=unseen)
    pieces = _arrange(rng, core, place, spoken_delay, verb_first=bool(opening) and not opening.endswith(", "))
    return command, _as_typed(rng, opening + pieces + closing)


def _draw_room(rng: random.Random, device: str) -> tuple[str | None, str]:
    """A room and a phrase for it, which becomes part of the device ("kitchen light") or separate ("in the kitchen")."""
    chance = rng.random()
    if device in home_phrases.ROOMLESS or chance < 0.12:
        return None, ""
    if chance < 0.18:
        return "all", rng.choice(home_phrases.EVERYWHERE)
    room = rng.choice(tuple(home_phrases.ROOMS))
    return room, rng.choice(home_phrases.ROOMS[room])


def _name(rng: random.Random, device: str, room: str | None, place: str) -> str:
    """The device with its article, and sometimes with its room in front ("the kitchen light")."""
    noun = rng.choice(home_phrases.DEVICES[device])
    if room == "all":
        return f"the {noun}"
    # A door in the garage is not "the garage door", which is another device.
    if room is not None and f"{place} {noun}" not in home_phrases.DEVICES and rng.random() < 0.4:
        return f"the {place} {noun}"
    pointer = "those" if noun.endswith("s") else "that"
    return rng.choice(("the", "the", "the", "my", "our", pointer)) + f" {noun}"


def _draw_politeness(rng: random.Random, *, request: bool, unseen: bool) -> tuple[str, str]:
    anywhere, requests = home_phrases.POLITENESS, home_phrases.REQUESTS
    if unseen and rng.random() < 0.5:
        anywhere, requests = home_phrases.UNSEEN_POLITENESS, home_phrases.UNSEEN_REQUESTS
    return rng.choice((*anywhere, *requests) if request else anywhere)


def _arrange(rng: random.Random, core: str, place: str, delay: str, *, verb_first: bool) -> str:
    """Put the pieces in one of the usual orders; after "could you" the verb stays first."""
    pieces = [core]
    if place and place not in core:
        where = (
            place if place in home_phrases.EVERYWHERE else f"{'on' if place in home_phrases.ON else 'in'} the {place}"
        )
        pieces.insert(1 if verb_first else rng.choice((0, 1, 1, 1)), where)
    if delay:
        pieces.insert(len(pieces) if verb_first else rng.choice((0, len(pieces), len(pieces))), delay)
    if pieces[0] != core and rng.random() < 0.5:
        pieces[0] += ","
    return " ".join(pieces)


def _as_typed(rng: random.Random, sentence: str) -> str:
    """With or without capitals and full stops, as in typed text or in the output of speech recognition."""
    style = rng.random()
    if style < 0.25:
        return sentence.rstrip("?").lower()
    sentence = sentence[0].upper() + sentence[1:]
    return sentence if style < 0.5 or sentence.endswith("?") else sentence + "."
