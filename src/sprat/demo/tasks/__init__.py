"""The tasks of the packaged student, each a generator of problems and a rule that scores answers.

The training recipe and ``sprat eval`` use the same modules, so that both agree on which problems are held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sprat.demo.tasks import arithmetic, home
from sprat.demo.tasks.split import Problem, Split
from sprat.errors import InputError, unknown_name

__all__ = ["GENERATED", "GeneratedTask", "Problem", "Split", "generated"]


@dataclass(frozen=True, slots=True)
class GeneratedTask:
    """A task whose problems have exactly one right answer."""

    name: str
    problems: Callable[..., Iterator[Problem]]
    """``problems(split, seed=0)``: an endless stream."""
    is_correct: Callable[[Problem, str], bool]
    """Whether an answer, without its reasoning, is exactly right."""


GENERATED: dict[str, GeneratedTask] = {
    "arithmetic": GeneratedTask("arithmetic", arithmetic.problems, arithmetic.is_correct),
    "home": GeneratedTask("home", home.problems, home.is_correct),
}


def generated(name: str) -> GeneratedTask:
    """The task of this name.

    Raises:
        InputError: no task has it.
    """
    if name not in GENERATED:
        raise InputError(unknown_name("task", name, GENERATED))
    return GENERATED[name]
