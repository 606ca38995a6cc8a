r"""A user's own questions for ``sprat eval --file``: JSON lines, one question each.

{"prompt": "What is 2 + 3?", "answer": "5"}
{"prompt": "Name a primary colour.", "answer": ["red", "blue", "yellow"], "match": "contains", "kind": "facts"}
{"prompt": "When does it open?", "answer": "\\b0?9[:.]30\\b", "match": "regex", "system": "Opening hours: 9:30-18"}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sprat.errors import InputError
from sprat.files import DocumentError, parse_json, read_text

__all__ = ["MATCHES", "Question", "read_questions"]

MATCHES = ("exact", "contains", "regex")


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file.

    Attributes:
        prompt: the user's message.
        answer: the right answer, or several of which each is right.
        match: ``exact`` compares without white space at both ends, ``contains`` looks for the answer anywhere, in
            any case, ``regex`` searches for it as a regular expression.
        kind: scores are also listed by it.
        system: a system message before the prompt.
    """

    prompt: str
    answer: str | list[str]
    match: str = "exact"
    kind: str = ""
    system: str = ""

    @property
    def answers(self) -> list[str]:
        """All right answers."""
        return [self.answer] if isinstance(self.answer, str) else self.answer

    def is_right(self, reply: str) -> bool:
        """Whether a reply, without its reasoning, is right."""
        if self.match == "regex":
            return any(re.search(pattern, reply) for pattern in self.answers)
        if self.match == "contains":
            return any(answer.casefold() in reply.casefold() for answer in self.answers)
        return reply.strip() in {answer.strip() for answer in self.answers}


def read_questions(path: Path) -> list[Question]:
    """The questions of a file; empty lines are skipped.

    Raises:
        InputError: the file cannot be read, has no question, or a line is not a question.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); pass a file of JSON lines") from error
    lines = enumerate(text.splitlines(), start=1)
    found = [_question(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not found:
        raise InputError(f'{path}: has no question; expected lines such as {{"prompt": "2 + 3?", "answer": "5"}}')
    return found


def _question(line: str, place: str) -> Question:
    try:
        found: Question = parse_json(line.encode(), Question)
    except DocumentError as error:
        raise InputError(f'{place}: {error}; expected such as {{"prompt": "2 + 3?", "answer": "5"}}') from error
    for problem in _problems(found):
        raise InputError(f"{place}: {problem}")
    return found


def _problems(question: Question) -> Iterator[str]:
    if not question.prompt.strip():
        yield "prompt is empty, expected a question"
    if not question.answers or not all(answer.strip() for answer in question.answers):
        yield "answer is empty, expected a text or a list of texts"
    if question.match not in MATCHES:
        yield f"match is {question.match!r}, expected one of {', '.join(MATCHES)}"
    if question.match == "regex":
        for pattern in question.answers:
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"answer {pattern!r} is not a regular expression ({error})"
