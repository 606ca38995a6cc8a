"""Word problems: someone has some items, gets or loses some, and the question is how many there are.

A story is an opening, one or two changes and a question, each sampled from a list of sentences.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sprat.demo.tasks.wording import phrases

__all__ = ["Comparison", "Story", "draw", "draw_comparison"]


@dataclass(frozen=True, slots=True)
class Story:
    """The text, the initial number, and the changes in order, negative for a loss."""

    text: str
    start: int
    changes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ask which of two people has ``more`` or ``fewer`` (the goal); ``first`` and ``second`` are their names."""

    text: str
    goal: str
    first: str
    second: str


_NAMES = phrases("Tom | Ann | Mia | Leo | Sam | Eva | Ben | Zoe | Max | Lily | Omar | Nina")
"""Few, because copying is learned name by name: with 32 names, 500 training steps were far too few."""
_ITEMS = phrases("""
    apples | books | stamps | coins | marbles | cards | pencils | stickers | eggs | oranges | shells | buttons
    cookies | stones | balloons | photos | seeds | nuts | toys | candles | flowers | bottles | tickets | bricks
    beads | lemons
""")
_PLACES = phrases("""
    shop | library | box | school | garden | store room | basket | bakery | museum | farm | office | kitchen
    warehouse
""")

_OPENINGS = phrases("""
    {name} has {n} {items}. | {name} had {n} {items}. | {name} owns {n} {items}. | {name} starts with {n} {items}.
    {name} collected {n} {items}. | There are {n} {items} on {name}'s table. | {name} keeps {n} {items} in a box.
    This morning {name} had {n} {items}. | {name} counts {n} {items}.
""")
_GAINS = phrases("""
    {name} buys {n} more. | {name} gets {n} more. | {name} finds {n} more. | A friend gives {name} {n} more.
    Then {name} buys {n} {items}. | {name} receives {n} {items}. | {name} picks up another {n}.
    {other} gives {name} {n} {items}. | Then {n} more are added. | {name} wins {n} {items}.
    {name} adds {n} to them. | {other} brings {n} more {items}. | Later {name} gets {n} more {items}.
    Then {name} is given {n} {items}. | {name}'s mother gives {name} {n} {items}. | {name} makes {n} more.
    {name}'s sister brings {n} more. | Luckily {name} finds {n} {items}. | {n} {items} arrive in the mail.
""")
_LOSSES = phrases("""
    {name} gives away {n}. | {name} loses {n}. | {name} sells {n} of them. | {name} gives {n} to {other}.
    Then {name} uses {n} {items}. | {other} takes {n} of them. | {name} throws away {n}. | {n} of them are lost.
    {name} lends {n} {items} to {other}. | Then {n} are taken away. | {name} drops {n} of the {items}.
    {name} donates {n} {items}. | Later {name} loses {n} of the {items}. | {name}'s sister takes {n}.
    Sadly {n} of them get lost. | {name} must return {n} of them. | {other} borrows {n} {items}.
    Then {n} of the {items} break. | {name} leaves {n} at home.
""")
_QUESTIONS = phrases("""
    How many {items} does {name} have now? | How many {items} are there now?
    How many {items} does {name} have in the end? | What is the number of {items} now? | How many {items} is that?
    How many {items} does that make?
""")

_PLACE_OPENINGS = phrases("""
    A {place} has {n} {items}. | There are {n} {items} in the {place}. | The {place} holds {n} {items}.
    We store {n} {items} in the {place}.
""")
_PLACE_GAINS = phrases("""
    {n} more arrive. | {name} brings {n} more. | Then {n} {items} are delivered. | Another {n} are put in.
    {n} {items} are added. | A truck brings {n} more {items}.
""")
_PLACE_LOSSES = phrases("""
    {n} are sold. | {name} takes {n} of them. | Then {n} {items} are used. | {n} are taken out.
    {n} {items} are removed. | A customer buys {n} {items}.
""")
_PLACE_QUESTIONS = phrases("""
    How many {items} are left? | How many {items} are there now? | How many {items} are in the {place} now?
    How many remain?
""")

_TOGETHER = phrases("""
    {name} has {a} {items} and {other} has {b}. How many {items} do they have together?
    {name} has {a} {items}. {other} has {b} {items}. How many do they have in total?
    There are {a} red {items} and {b} blue {items}. How many {items} are there in all?
    {name} picked {a} {items} on Monday and {b} on Tuesday. How many {items} is that altogether?
    A {place} sold {a} {items} in the morning and {b} in the afternoon. How many were sold in total?
    {name} read {a} pages and then {b} pages. How many pages did {name} read?
    {name} has {a} {items} and {other} has {b} {items}. What is the total?
    In the {place} there are {a} large {items} and {b} small ones. How many {items} are there in all?
    {name} earned {a} coins and {other} earned {b} coins. How many coins is that in all?
    A ticket costs {a} cents and a drink costs {b} cents. How many cents is that together?
""")
_DIFFERENCE = phrases("""
    {name} has {a} {items} and {other} has {b}. How many more does {name} have?
    {name} has {a} {items}. {other} has only {b}. How many fewer does {other} have?
    A book has {a} pages. {name} has read {b} of them. How many pages are left?
    {name} has {a} cents and pays {b} cents. How many cents are left?
    A road is {a} meters long. {name} has walked {b} meters. How many meters remain?
    {name} needs {a} {items} and already has {b}. How many are missing?
    A room has {a} seats and {b} are taken. How many seats are free?
    There were {a} {items} in the {place}. Now {b} have been sold. How many are left?
    {name} made {a} {items} and gave away {b} of them. How many are left over?
    Of {a} {items}, {b} are red. How many are not red? | Out of {a} {items}, {b} are lost. How many are not lost?
""")

_TOGETHER_UNSEEN = (
    "{name} saved {a} coins and {other} saved {b} coins. What do they have in all?",
    "In the {place} there are {a} old {items} and {b} new {items}. What is the total number of {items}?",
)
_DIFFERENCE_UNSEEN = (
    "{name} baked {a} rolls and sold {b} of them. How many rolls are left over?",
    "Of {a} {items}, {b} are broken. How many are not broken?",
)
_GAINS_UNSEEN = ("Later {name} is handed {n} more {items}.", "{name}'s aunt sends {n} {items}.")
_LOSSES_UNSEEN = ("Sadly {name} breaks {n} of them.", "{name}'s brother keeps {n}.")

_COMPARISONS = (
    ("{first} has {a} {items} and {second} has {b}. Who has {goal}?", ("more", "fewer")),
    ("{first} has {a} {items}. {second} has {b} {items}. Who has {goal} {items}?", ("more", "fewer")),
    ("Who has {goal} {items}: {first} with {a} or {second} with {b}?", ("more", "fewer")),
    ("{first} scored {a} points and {second} scored {b}. Who scored {goal}?", ("more", "fewer")),
    ("{first} collected {a} {items} and {second} collected {b}. Who collected {goal}?", ("more", "fewer")),
    ("{first} walked {a} meters. {second} walked {b} meters. Who walked {goal} meters?", ("more", "fewer")),
)

_LIMIT = 999
"""No number in a story is larger, intermediate results included; only the last sum may be."""


def draw(rng: random.Random, *, n_steps: int, unseen: bool) -> Story:
    """A story with `n_steps` changes. `unseen` ones contain a sentence that is never trained on."""
    if n_steps == 1 and rng.random() < 0.5:
        return _draw_pair(rng, unseen=unseen)
    at_place = not unseen and rng.random() < 0.35
    gains, losses = (
        (_PLACE_GAINS, _PLACE_LOSSES) if at_place else (_GAINS_UNSEEN, _LOSSES_UNSEEN) if unseen else (_GAINS, _LOSSES)
    )
    value = start = _amount(rng, _LIMIT)
    sentences = [(_PLACE_OPENINGS if at_place else _OPENINGS, start)]
    changes = []
    for step in range(n_steps):
        change = _draw_change(rng, value, last=step == n_steps - 1)
        sentences.append((gains if change > 0 else losses, abs(change)))
        changes.append(change)
        value += change
    sentences.append((_PLACE_QUESTIONS if at_place else _QUESTIONS, 0))
    slots = _slots(rng)
    text = " ".join(rng.choice(templates).format(n=n, **slots) for templates, n in sentences)
    return Story(text, start, tuple(changes))


def draw_comparison(rng: random.Random, a: int, b: int) -> Comparison:
    """Two people with `a` and `b` things; who has more, or fewer?"""
    first, second = rng.sample(_NAMES, 2)
    template, goals = rng.choice(_COMPARISONS)
    goal = rng.choice(goals)
    text = template.format(first=first, second=second, a=a, b=b, goal=goal, items=rng.choice(_ITEMS))
    return Comparison(text, goal, first, second)


def _draw_change(rng: random.Random, value: int, *, last: bool) -> int:
    if value > 1 and (rng.random() < 0.5 or value >= _LIMIT):
        return -_amount(rng, value)
    return _amount(rng, _LIMIT if last else _LIMIT - value)


def _draw_pair(rng: random.Random, *, unseen: bool) -> Story:
    a, b = _amount(rng, _LIMIT), _amount(rng, _LIMIT)
    if rng.random() < 0.5:
        template = rng.choice(_TOGETHER_UNSEEN if unseen else _TOGETHER)
        return Story(template.format(a=a, b=b, **_slots(rng)), a, (b,))
    a, b = max(a, b), min(a, b)
    template = rng.choice(_DIFFERENCE_UNSEEN if unseen else _DIFFERENCE)
    return Story(template.format(a=a, b=b, **_slots(rng)), a, (-b,))


def _amount(rng: random.Random, limit: int) -> int:
    """From 1 to `limit`; in a third of the cases below 100."""
    return rng.randint(1, min(limit, 99) if rng.random() < 0.33 else limit)


def _slots(rng: random.Random) -> dict[str, str]:
    name, other = rng.sample(_NAMES, 2)
    return {"name": name, "other": other, "items": rng.choice(_ITEMS), "place": rng.choice(_PLACES)}
