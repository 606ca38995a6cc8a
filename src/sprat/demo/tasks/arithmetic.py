"""Reasoning in small steps: add, subtract, compare, and word problems of one or two steps, with numbers up to 999.

The reasoning has one line per step, digit by digit from the right. Each line is a true equation, and the last line is
the answer. The lines of ``347+285`` are ::

    347+285
    7+5+0=12
    4+8+1=13
    3+2+1=06
    632

``532-347`` borrows by adding ten: ``2-7-0+10=5``, and the next line subtracts 1. Numbers are padded to three digits, so
that a step finds its digits at fixed positions.

A comparison begins with its goal (min, max, less, greater), assigns a letter to each possible answer, compares digits
from the left until two differ, selects a letter, and looks up its answer. The lines of "Is 87 or 92 the smaller
number?" are ::

    min
    A=87
    B=92
    087?092
    0=0
    8<9
    A<B
    min=A
    A=87
    87

**Prompts** are one plain English question. **The answer** is a number, a name, or yes or no, and nothing else.

A problem is held out by its numbers: if ``7 + 25`` is held out, it is not trained on in any template.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from sprat.demo.tasks import word_problems
from sprat.demo.tasks.split import Problem, Split, split_of
from sprat.demo.tasks.wording import phrases

__all__ = ["is_correct", "problems"]

_ADD = phrases("""
    What is {a} + {b}? | {a} + {b} | {a}+{b}= | Calculate {a} + {b}. | What is {a} plus {b}? | Add {a} and {b}.
    What is the sum of {a} and {b}? | Please add {b} to {a}. | How much is {a} plus {b}? | Work out {a} + {b}.
    Compute {a}+{b}. | Can you add {a} and {b}? | What do you get when you add {a} and {b}?
    {a} plus {b} is what? | What's {a} + {b}? | Solve {a} + {b}. | Tell me {a} plus {b}. | What is {a}+{b}?
    What is the total of {a} and {b}? | Give me {a} + {b}. | Find {a} plus {b}. | I need the sum of {a} and {b}.
    If I add {a} to {b}, what do I get? | What is the result of {a} + {b}? | How much are {a} and {b} together?
    Sum up {a} and {b}. | Take {a} and add {b}. What is the result?
""")
_ADD_UNSEEN = phrases("""
    Find the total of {a} and {b}. | If I put {a} and {b} together, what do I get?
    Give me the result of {a} + {b}.
""")
_SUBTRACT = phrases("""
    What is {a} - {b}? | {a} - {b} | {a}-{b}= | Calculate {a} - {b}. | What is {a} minus {b}?
    Subtract {b} from {a}. | What is the difference between {a} and {b}? | Please take {b} away from {a}.
    How much is {a} minus {b}? | Work out {a} - {b}. | Compute {a}-{b}. | Can you subtract {b} from {a}?
    What do you get when you take {b} from {a}? | {a} minus {b} is what? | What's {a} - {b}? | Solve {a} - {b}.
    Tell me {a} minus {b}. | What is {a}-{b}? | What is {a} less {b}? | Give me {a} - {b}. | Find {a} minus {b}.
    I need the difference of {a} and {b}. | If I take {b} away from {a}, what remains?
    What is the result of {a} - {b}? | What is left of {a} without {b}? | Remove {b} from {a}.
    Take {a} and subtract {b}. What is the result?
""")
_SUBTRACT_UNSEEN = phrases("""
    Find {a} less {b}. | If I remove {b} from {a}, what is left? | Give me the result of {a} - {b}.
""")
_LARGER = phrases("""
    Which is larger, {a} or {b}? | Which number is bigger: {a} or {b}? | What is the larger of {a} and {b}?
    Which is greater, {a} or {b}? | Name the bigger number: {a}, {b}. | Compare {a} and {b}. Which one is larger?
    Of {a} and {b}, which is more? | Which number is higher, {a} or {b}? | Tell me the greater of {a} and {b}.
    Is {a} or {b} the larger number? | Give me the larger one of {a} and {b}. | Choose the bigger of {a} and {b}.
    What is the maximum of {a} and {b}? | Out of {a} and {b}, which is the bigger one?
    There are {a} and {b}. Which is the greater one? | Find the larger number: {a} or {b}.
""")
_SMALLER = phrases("""
    Which is smaller, {a} or {b}? | Which number is less: {a} or {b}? | What is the smaller of {a} and {b}?
    Which is lower, {a} or {b}? | Name the smaller number: {a}, {b}. | Compare {a} and {b}. Which one is smaller?
    Of {a} and {b}, which is less? | Which number is lower, {a} or {b}? | Tell me the lesser of {a} and {b}.
    Is {a} or {b} the smaller number? | Give me the smaller one of {a} and {b}. | Choose the lower of {a} and {b}.
    What is the minimum of {a} and {b}? | Out of {a} and {b}, which is the smaller one?
    There are {a} and {b}. Which is the lesser one? | Find the smaller number: {a} or {b}.
""")
_IS_GREATER = phrases("""
    Is {a} greater than {b}? | Is {a} larger than {b}? | Is {a} more than {b}? | Is {a} bigger than {b}?
    Is it true that {a} > {b}? | Is {a} higher than {b}?
""")
_IS_LESS = phrases("""
    Is {a} less than {b}? | Is {a} smaller than {b}? | Is {a} fewer than {b}? | Is it true that {a} < {b}?
    Is {a} lower than {b}?
""")
_LARGER_UNSEEN = ("Pick the bigger one of {a} and {b}.", "Between {a} and {b}, which is the larger?")


def problems(split: Split, *, seed: int = 0) -> Iterator[Problem]:
    """An endless stream of problems of `split`; the same seed gives the same stream."""
    rng = random.Random(f"arithmetic/{split.value}/{seed}")
    kinds = _KINDS_UNSEEN if split is Split.UNSEEN else _KINDS
    wanted = Split.TRAIN if split is Split.TRAIN else Split.HELD_OUT
    weights = _WEIGHTS | (_TRAINING_WEIGHTS if split is Split.TRAIN else {})
    while True:
        kind = rng.choices(tuple(kinds), weights=[weights[kind] for kind in kinds])[0]
        instance, problem = kinds[kind](rng)
        if split is Split.TRAIN and not _SHORT.search(instance) and rng.random() < _SKIPPED_SHARE:
            continue
        if split_of(instance) is wanted:
            yield problem


def is_correct(problem: Problem, answer: str) -> bool:
    """Whether `answer`, without the reasoning, is exactly right; surrounding space and a full stop are ignored."""
    return answer.strip().rstrip(".") == problem.answer


def _number(rng: random.Random) -> int:
    """A number up to 999; short ones are oversampled."""
    return rng.randint(0, 10 ** rng.choices((1, 2, 3), weights=(1, 2, 7))[0] - 1)


def _near(rng: random.Random, a: int) -> int:
    """A number to compare `a` with, often one that shares its first digits: those comparisons take more steps."""
    if rng.random() < 0.4:
        return _number(rng)
    step = rng.choice((1, 2, 5, 9, 10, 20, 50, 90))
    return min(999, max(0, a + rng.choice((-1, 1)) * rng.randint(1, step)))


def _different(rng: random.Random) -> tuple[int, int]:
    a = _number(rng)
    b = _near(rng, a)
    return a, (a + 1) % 1000 if a == b else b


def add_steps(a: int, b: int) -> list[str]:
    """The lines that compute ``a + b``; the last is the sum.

    >>> add_steps(58, 7)
    ['058+007', '8+7+0=15', '5+0+1=06', '0+0+0=00', '65']
    """
    lines, carry = [f"{a:03}+{b:03}"], 0
    for x, y in zip(reversed(f"{a:03}"), reversed(f"{b:03}"), strict=True):
        total = int(x) + int(y) + carry
        lines.append(f"{x}+{y}+{carry}={total:02}")
        carry = total // 10
    return [*lines, str(a + b)]


def subtract_steps(a: int, b: int) -> list[str]:
    """The lines that compute ``a - b`` for a >= b; the last is the difference.

    >>> subtract_steps(52, 7)
    ['052-007', '2-7-0+10=5', '5-0-1=4', '0-0-0=0', '45']
    """
    lines, borrow = [f"{a:03}-{b:03}"], 0
    for x, y in zip(reversed(f"{a:03}"), reversed(f"{b:03}"), strict=True):
        rest = int(x) - int(y) - borrow
        lines.append(f"{x}-{y}-{borrow}+10={rest + 10}" if rest < 0 else f"{x}-{y}-{borrow}={rest}")
        borrow = int(rest < 0)
    return [*lines, str(a - b)]


def compare_steps(a: int, b: int) -> list[str]:
    """The lines that compare `a`, called A, with `b`, called B; the last is ``A<B``, ``A>B`` or ``A=B``.

    >>> compare_steps(417, 471)
    ['417?471', '4=4', '1<7', 'A<B']
    """
    lines = [f"{a:03}?{b:03}"]
    for x, y in zip(f"{a:03}", f"{b:03}", strict=True):
        lines.append(f"{x}{_sign(int(x), int(y))}{y}")
        if x != y:
            break
    return [*lines, f"A{_sign(a, b)}B"]


def select_steps(goal: str, a: int, b: int, names: tuple[str, str], link: str = "=") -> list[str]:
    """The lines that select the ``min`` or ``max`` of `a` and `b`, called `names`; the last is the answer.

    >>> select_steps("max", 7, 45, ("Tom", "Ann"), link=" is ")
    ['max', 'A is Tom', 'B is Ann', '007?045', '0=0', '0<4', 'A<B', 'max=B', 'B is Ann', 'Ann']
    """
    facts = [f"{letter}{link}{name}" for letter, name in zip("AB", names, strict=True)]
    selected = int((b > a) == (goal == "max"))
    return [goal, *facts, *compare_steps(a, b), f"{goal}={'AB'[selected]}", facts[selected], names[selected]]


def yes_no_steps(goal: str, a: int, b: int) -> list[str]:
    """The lines that decide whether `a` is ``less`` or ``greater`` than `b`; the last is yes or no.

    >>> yes_no_steps("less", 7, 45)
    ['less', '007?045', '0=0', '0<4', 'A<B', 'less=yes', 'yes']
    """
    answer = "yes" if _sign(a, b) == {"less": "<", "greater": ">"}[goal] else "no"
    return [goal, *compare_steps(a, b), f"{goal}={answer}", answer]


def _sign(a: int, b: int) -> str:
    return "<" if a < b else ">" if a > b else "="


def _solved(prompt: str, lines: list[str], kind: str) -> Problem:
    return Problem(prompt=prompt, reasoning="\n".join(lines), answer=lines[-1], kind=kind)


def _addition(templates: tuple[str, ...]) -> _Sample:
    def sample(rng: random.Random) -> tuple[str, Problem]:
        a, b = _number(rng), _number(rng)
        prompt = rng.choice(templates).format(a=a, b=b)
        return f"{a}+{b}", _solved(prompt, add_steps(a, b), "add")

    return sample


def _subtraction(templates: tuple[str, ...]) -> _Sample:
    def sample(rng: random.Random) -> tuple[str, Problem]:
        b, a = sorted((_number(rng), _number(rng)))
        prompt = rng.choice(templates).format(a=a, b=b)
        return f"{a}-{b}", _solved(prompt, subtract_steps(a, b), "subtract")

    return sample


def _choice(larger: tuple[str, ...], smaller: tuple[str, ...]) -> _Sample:
    """Ask for the larger or smaller of two numbers."""

    def sample(rng: random.Random) -> tuple[str, Problem]:
        a, b = _different(rng)
        goal, templates = rng.choice([("max", larger), ("min", smaller)] if smaller else [("max", larger)])
        lines = select_steps(goal, a, b, (str(a), str(b)))
        return f"{a}?{b}", _solved(rng.choice(templates).format(a=a, b=b), lines, "compare")

    return sample


def _yes_or_no(rng: random.Random) -> tuple[str, Problem]:
    a = _number(rng)
    b = a if rng.random() < 0.05 else _near(rng, a)
    goal, templates = rng.choice((("greater", _IS_GREATER), ("less", _IS_LESS)))
    return f"{a}?{b}", _solved(rng.choice(templates).format(a=a, b=b), yes_no_steps(goal, a, b), "compare")


def _story(rng: random.Random, *, unseen: bool, n_steps: int) -> tuple[str, Problem]:
    story = word_problems.draw(rng, n_steps=n_steps, unseen=unseen)
    lines: list[str] = []
    value = story.start
    for change in story.changes:
        lines += add_steps(value, change) if change >= 0 else subtract_steps(value, -change)
        value += change
    instance = "".join([str(story.start), *(f"{change:+}" for change in story.changes)])
    kind = "word problem, one step" if n_steps == 1 else "word problem, two steps"
    return instance, _solved(story.text, lines, kind)


def _story_compare(rng: random.Random) -> tuple[str, Problem]:
    a, b = _different(rng)
    story = word_problems.draw_comparison(rng, a, b)
    lines = select_steps("max" if story.goal == "more" else "min", a, b, (story.first, story.second), link=" is ")
    return f"{a}?{b}", _solved(story.text, lines, "compare")


_Sample = Callable[[random.Random], tuple[str, Problem]]
"""Samples a problem; returns the text that decides its split, and the problem."""

_WEIGHTS = {"add": 4, "subtract": 4, "choose": 4, "yes or no": 3, "who": 4, "one step": 5, "two steps": 6}
_TRAINING_WEIGHTS = {"who": 8, "one step": 7, "two steps": 12}
"""Weights in training, where harder kinds get more: names are harder to copy than numbers."""
_SHORT = re.compile(r"\b\d{1,2}\b")
_SKIPPED_SHARE = 0.5
"""Share of the problems without a number below 100 that training skips: padding short numbers is learned last."""
_KINDS: dict[str, _Sample] = {
    "add": _addition(_ADD),
    "subtract": _subtraction(_SUBTRACT),
    "choose": _choice(_LARGER, _SMALLER),
    "yes or no": _yes_or_no,
    "who": _story_compare,
    "one step": lambda rng: _story(rng, unseen=False, n_steps=1),
    "two steps": lambda rng: _story(rng, unseen=False, n_steps=2),
}
_KINDS_UNSEEN: dict[str, _Sample] = {
    "add": _addition(_ADD_UNSEEN),
    "subtract": _subtraction(_SUBTRACT_UNSEEN),
    "choose": _choice(_LARGER_UNSEEN, ()),
    "one step": lambda rng: _story(rng, unseen=True, n_steps=1),
    "two steps": lambda rng: _story(rng, unseen=True, n_steps=2),
}
