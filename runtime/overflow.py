"""Policies for a conversation that exceeds the context: an error, fewer turns, or a summary of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

import msgspec

from sprat.alignment import ceil_div
from sprat.errors import InputError, PromptError, unknown_name
from sprat.runtime.chat.completions import ChatStream, Message
from sprat.runtime.chat.prompt import ChatPrompt, TemplateOptions, message_fields
from sprat.runtime.frontend import Frontend
from sprat.runtime.generate.options import GenerateOptions

__all__ = ["Fitting", "Overflow", "checked_overflow", "last_turn"]

Overflow = Literal["error", "shift", "summarise"]
"""``"error"`` raises PromptError; ``"shift"`` drops the oldest turns, some at a time, and keeps system messages;
``"summarise"`` lets the model summarise those turns first, in a system message."""

_MIN_ANSWER = 4  # one part of this many of the context is kept free for the answer when turns are dropped
_SUMMARY = 8  # a summary takes one part of this many of the context, at most
_HEADING = "Summary of the conversation so far:\n"
_INSTRUCTION = "Summarise this conversation in a few sentences. Keep names, numbers and decisions.\n\n"


def checked_overflow(policy: object) -> Overflow:
    """The policy; ``"stop"`` is the old name of ``"error"``.

    Raises:
        InputError: there is no such policy.
    """
    if policy == "stop":
        warnings.warn('overflow="stop" is now "error"; the old name goes in 0.4', DeprecationWarning, stacklevel=3)
        return "error"
    for known in get_args(Overflow):
        if policy == known:
            return known  # type: ignore[no-any-return]  # one of the literals
    raise InputError(unknown_name("overflow policy", str(policy), get_args(Overflow)))


def last_turn(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The messages before the last turn, and that turn: from the user's last message on, with calls and results."""
    users = [at for at, message in enumerate(messages) if _role(message) == "user"]
    last = users[-1] if users else len(messages) - 1
    return list(messages[:last]), list(messages[last:])


class Fitting(msgspec.Struct, frozen=True):
    """Fits conversations into a context.

    Attributes:
        frontend: tokenizer and chat template.
        capacity: tokens of prompt and answer.
        overflow: the policy.
        answer: starts the reply to a prompt, for summaries.
    """

    frontend: Frontend
    capacity: int
    overflow: Overflow
    answer: Callable[[ChatPrompt, GenerateOptions], ChatStream]

    def prompt(
        self, messages: Sequence[Mapping[str, Any]], template: TemplateOptions, options: GenerateOptions
    ) -> ChatPrompt:
        """The prompt of a conversation, whose last turn begins with the last message of the user.

        Raises:
            PromptError: as :meth:`fit`, or these are no messages.
        """
        if self.overflow == "error" or isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
            return self.frontend.encode_chat(messages, template)
        before, turn = last_turn(cast("Sequence[Message]", messages))
        return self.fit(before, turn, template, options)[1]

    def fit(
        self, before: Sequence[Message], turn: Sequence[Message], template: TemplateOptions, options: GenerateOptions
    ) -> tuple[list[Message], ChatPrompt]:
        """Messages that are kept of ``before``, and the prompt.

        Args:
            before: the conversation.
            turn: its last messages, from the user's on; they are kept.
            template: what else the template is given.
            options: of the answer; the limit on its tokens is kept free, up to a quarter of the context.

        Raises:
            PromptError: the conversation is longer than the context; unless the policy is ``"error"``, the turn is.
        """
        if self.overflow == "error":
            return list(before), self.frontend.encode_chat([*before, *turn], template)
        share = self.capacity // _MIN_ANSWER
        limit = self.capacity - min(options.get("max_tokens") or share, share)
        kept, prompt = self._shift(list(before), turn, template, limit)
        if len(kept) == len(before):
            return kept, prompt
        if self.overflow == "summarise":
            kept, _ = self._shift(list(before), turn, template, limit - self.capacity // _SUMMARY)
        kept = _with_room(before, kept)
        prompt = self.frontend.encode_chat([*kept, *turn], template)
        if self.overflow == "shift":
            return kept, prompt
        dropped = [message for message in before if not any(message is other for other in kept)]
        summary = self._summary([*filter(_is_summary, before), *dropped], options)
        if not summary:
            return kept, prompt
        kept = _with_summary(kept, summary)
        return kept, self.frontend.encode_chat([*kept, *turn], template)

    def _shift(
        self, kept: list[Message], turn: Sequence[Message], template: TemplateOptions, limit: int
    ) -> tuple[list[Message], ChatPrompt]:
        """Drop turns until the prompt has at most ``limit`` tokens, or no turn is left."""
        while True:
            shorter = _without_oldest_turn(kept)
            is_last = shorter == kept
            try:
                prompt = self.frontend.encode_chat([*kept, *turn], template)
            except PromptError:  # too long to be encoded
                if is_last:
                    raise
            else:
                if is_last or len(prompt.tokens) <= limit:
                    return kept, prompt
            kept = shorter

    def _summary(self, messages: Sequence[Message], options: GenerateOptions) -> str:
        """The model's summary of ``messages``; the oldest are left out while they are too long for the context."""
        n_tokens = max(1, self.capacity // _SUMMARY)
        wanted = GenerateOptions(max_tokens=n_tokens, temperature=0.0, timeout=options.get("timeout"))
        for first in range(len(messages)):
            text = _INSTRUCTION + "\n".join(f"{_role(message)}: {_text(message)}" for message in messages[first:])
            try:
                prompt = self.frontend.encode_chat([Message(role="user", content=text)])
            except PromptError:  # too long to be encoded
                continue
            if len(prompt.tokens) + n_tokens <= self.capacity:
                return self.answer(prompt, wanted).completion()["choices"][0]["message"]["content"].strip()
        return ""


def _without_oldest_turn(messages: list[Message]) -> list[Message]:
    """``messages`` without the first user message and what follows up to the next; system messages stay."""
    users = [index for index, message in enumerate(messages) if _role(message) == "user"]
    if not users:
        return messages
    end = users[1] if users[1:] else len(messages)
    turn = messages[users[0] : end]
    return messages[: users[0]] + [message for message in turn if _role(message) == "system"] + messages[end:]


def _with_room(messages: Sequence[Message], kept: Sequence[Message]) -> list[Message]:
    """``messages`` without as many of the oldest turns as are not in ``kept``, rounded up.

    Dropping a turn costs the prefix cache all that follows it. So turns are dropped by a power of two that is at most
    half of what fits: the next ones find the rest where it was, in a session and in a list that grows call by call.
    """
    n_kept = _n_turns(kept)
    together = 1 << max(0, (n_kept // 2).bit_length() - 1)
    left = list(messages)
    for _ in range(ceil_div(_n_turns(messages) - n_kept, together) * together):
        left = _without_oldest_turn(left)
    return left


def _n_turns(messages: Sequence[Message]) -> int:
    return sum(_role(message) == "user" for message in messages)


def _with_summary(messages: Sequence[Message], summary: str) -> list[Message]:
    """``messages`` with the summary behind the system messages at the beginning, in place of an earlier one."""
    kept = [message for message in messages if not _is_summary(message)]
    first = next((index for index, message in enumerate(kept) if _role(message) != "system"), len(kept))
    return [*kept[:first], Message(role="system", content=_HEADING + summary), *kept[first:]]


def _role(message: object) -> object:
    return message_fields(message).get("role")


def _is_summary(message: Message) -> bool:
    return _role(message) == "system" and _text(message).startswith(_HEADING)


def _text(message: Message) -> str:
    """The text of a message, whose content may be missing or in parts."""
    content: Any = message_fields(message).get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content or () if isinstance(part, dict) and "text" in part)
