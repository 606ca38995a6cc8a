"""The format of a chat template that treats every message alike: fixed text before and after each role's content.

Found by rendering conversations whose contents are known, and accepted only if it renders others as the template does.
Runtimes with another template language, such as Ollama, can express such a format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from sprat.errors import TemplateError
from sprat.runtime.chat.template import DEFAULT_NAME, ChatTemplate

__all__ = ["Turn", "TurnFormat", "turn_format"]

_SYSTEM, _USER, _ANSWER, _AGAIN = "sentinel0 system", "sentinel1 user", "sentinel2 answer", "sentinel3 user"


class Turn(NamedTuple):
    """The text around one role's content."""

    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFormat:
    """Fixed text of a template around the messages of a conversation.

    Attributes:
        start: text before the first message.
        system: None if the template has no system message, or merges it with another one.
        user: around a user's message.
        assistant: around an answer.
        prompt: the text after which the model answers.
        default_system: the system message that the template writes where a conversation has none.
    """

    start: str
    system: Turn | None
    user: Turn
    assistant: Turn
    prompt: str
    default_system: str | None = None

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt for ``messages``."""
        if self.system and self.default_system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default_system}, *messages]
        turns = {"system": self.system or Turn("", ""), "user": self.user, "assistant": self.assistant}
        parts = [turns[m["role"]].before + m["content"] + turns[m["role"]].after for m in messages]
        return "".join([self.start, *parts, self.prompt])


def turn_format(template: ChatTemplate) -> TurnFormat | None:
    """The format of ``template``; None if no fixed text around the contents gives the same prompts.

    A template that writes the date has no fixed text.
    """
    if DEFAULT_NAME not in template.sources or any("strftime_now" in source for source in template.sources.values()):
        return None
    for plain in _without_system(template):
        for found in (_with_system(template, plain), plain):
            if found and all(_agrees(template, found, messages) for messages in _probes(found)):
                return found
    return None


def _without_system(template: ChatTemplate) -> Iterator[TurnFormat]:
    """Candidates for the format of users' and assistants' turns.

    ::

        question   start user.before U user.after
        followed   start user.before U user.after assistant.before A assistant.after user.before U user.after
        answered   start user.before U user.after assistant.before A assistant.after
    """
    with suppress(TemplateError, ValueError):
        question = _render(template, [("user", _USER)])
        prompt = _strip_start(_render(template, [("user", _USER)], answer=True), question)
        head, user_after = _split(question, _USER)
        followed = _render(template, [("user", _USER), ("assistant", _ANSWER), ("user", _AGAIN)])
        between, rest = _split(_split(followed, _USER)[1], _ANSWER)
        last = _split(rest, _AGAIN)[0]
        assistant_before = _strip_start(between, user_after)
        for user_before in _users_start(template, head, last):
            yield TurnFormat(
                start=_strip_end(head, user_before),
                system=None,
                user=Turn(user_before, user_after),
                assistant=Turn(assistant_before, _strip_end(last, user_before)),
                prompt=prompt,
            )


def _users_start(template: ChatTemplate, head: str, last: str) -> Iterator[str]:
    """The text before a user's message: it ends ``head`` and ``last``, and does not follow an answer that is last."""
    with suppress(TemplateError, ValueError):
        answered = _render(template, [("user", _USER), ("assistant", _ANSWER)])
        yield _strip_start(last, _split(answered, _ANSWER)[1])
    n_common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(head[::-1], last[::-1], strict=False)))
    yield head[len(head) - n_common :]


def _with_system(template: ChatTemplate, plain: TurnFormat) -> TurnFormat | None:
    """``plain`` with the format of a system message, and the default that ``plain.start`` contains, if any."""
    try:
        before, rest = _split(_render(template, [("system", _SYSTEM), ("user", _USER)]), _SYSTEM)
        after = _strip_end(_split(rest, _USER)[0], plain.user.before)
    except (TemplateError, ValueError):
        return None
    start, default = plain.start, None
    if start.startswith(before) and start.endswith(after) and len(start) > len(before + after):
        start, default = "", start[len(before) : len(start) - len(after)]
    elif not before.startswith(start):
        return None
    return TurnFormat(
        start=start,
        system=Turn(before[len(start) :], after),
        user=plain.user,
        assistant=plain.assistant,
        prompt=plain.prompt,
        default_system=default,
    )


def _probes(found: TurnFormat) -> list[list[tuple[str, str]]]:
    history = [
        ("user", "One.\nTwo?"),
        ("assistant", "Three: {4}"),
        ("user", "5"),
        ("assistant", "6"),
        ("user", "Seven?"),
    ]
    probes = [history[:1], history[:3], history]
    if found.system:
        probes += [[("system", "Be brief.\nAlways."), *probe] for probe in probes]
    return probes


def _agrees(template: ChatTemplate, found: TurnFormat, probe: list[tuple[str, str]]) -> bool:
    messages = [{"role": role, "content": content} for role, content in probe]
    try:
        return found.render(messages) == template.render(messages)
    except TemplateError:
        return False


def _render(template: ChatTemplate, turns: list[tuple[str, str]], *, answer: bool = False) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return template.render(messages, add_generation_prompt=answer)


def _split(text: str, content: str) -> tuple[str, str]:
    before, found, after = text.partition(content)
    if not found or content in after:
        raise ValueError(f"{content!r} is not in the prompt once")
    return before, after


def _strip_start(text: str, start: str) -> str:
    if not text.startswith(start):
        raise ValueError(f"the prompt does not continue with {start!r}")
    return text[len(start) :]


def _strip_end(text: str, end: str) -> str:
    if not text.endswith(end):
        raise ValueError(f"the prompt does not end with {end!r}")
    return text[: len(text) - len(end)]
