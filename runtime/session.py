"""``Session``: a conversation that keeps its KV cache between turns, so that a turn processes only its new tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Self, Unpack, get_args

from sprat.errors import InputError, PromptError, SessionBusyError, unknown_name
from sprat.runtime.backends.protocol import TokenStream
from sprat.runtime.chat.completions import ChatCompletion, ChatStream, Message
from sprat.runtime.chat.prompt import (
    ChatOptions,
    ChatPrompt,
    TemplateOptions,
    reply_options,
    split_chat_options,
)
from sprat.runtime.chat.tools.plan import ToolPlan
from sprat.runtime.frontend import Frontend
from sprat.runtime.generate.generation import FinishReason, Generation
from sprat.runtime.generate.options import GenerateOptions
from sprat.runtime.generate.transcript import Transcript

__all__ = ["Overflow", "Session"]

Overflow = Literal["stop", "shift"]

_CUT_SHORT = {FinishReason.CANCELLED, FinishReason.TIMEOUT}
_NOTHING = Message(role="assistant", content="")
_MIN_ANSWER = 4  # one part of this many of the context is kept free for the answer when turns are dropped


class Session:
    """One conversation with its KV cache; create it with :meth:`sprat.runtime.engine.Engine.session`.

    ``generate`` takes the whole prompt each time and processes only what follows the common prefix with the tokens in
    the cache. ``chat`` keeps the messages itself. A new answer ends one that is still running.

    A session is for one thread at a time, of which a second one is told with
    :class:`~sprat.errors.SessionBusyError`; sessions of one engine may run in several threads.

    Args:
        frontend: tokenizer and chat template of the model.
        stream: an empty token stream; closed with the session.
        on_close: called when the stream has been closed.
        overflow: what ``chat`` does when the conversation fills the context: ``"stop"`` raises PromptError and leaves
            the conversation as it is, ``"shift"`` drops the oldest turns and keeps the system message.

    Attributes:
        messages: the conversation so far. It may be edited: the next turn processes what changed.

    Raises:
        InputError: ``overflow`` is neither.
    """

    def __init__(
        self,
        frontend: Frontend,
        stream: TokenStream,
        *,
        overflow: Overflow = "stop",
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self._transcript = Transcript(stream, on_close)
        if overflow not in get_args(Overflow):
            self._transcript.close()
            raise InputError(unknown_name("overflow policy", overflow, get_args(Overflow)))
        self.messages: list[Message] = []
        self._overflow = overflow
        self._frontend = frontend
        self._running: Generation | None = None
        self._lock = threading.RLock()

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens in the cache."""
        return tuple(self._transcript.tokens)

    def generate(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> Generation:
        """Continue ``prompt``; see :meth:`sprat.runtime.engine.Engine.generate`."""
        return self._start(self._frontend.encode(prompt), options, continues=True)

    def chat(self, text: str | Sequence[Message], **options: Unpack[ChatOptions]) -> ChatCompletion:
        """Add ``text`` as a user message and return the whole reply, in OpenAI's format.

        Args:
            text: the message; or a list of messages, such as the results of the tools that the model called.
            **options: as for :meth:`sprat.runtime.engine.Engine.chat`, except ``n``.

        Raises:
            SessionBusyError: another thread uses the session.
        """
        with self._alone():
            return self.stream_chat(text, **options).completion()

    def stream_chat(self, text: str | Sequence[Message], **options: Unpack[ChatOptions]) -> ChatStream:
        """Add ``text`` as a user message and stream the reply; both are added to ``messages`` when it has ended.

        A turn that is cancelled, or times out, before its first token is not added.

        Raises:
            TemplateError: the model has no chat template, or it fails on these messages.
            PromptError: the conversation is longer than the context; with ``"shift"``, the new message alone is.
            SessionBusyError: another thread uses the session.
        """
        questions = [*text] if isinstance(text, list | tuple) else [Message(role="user", content=text)]  # type: ignore[typeddict-item]
        for_template, for_generation = split_chat_options(options)
        for_reply = reply_options(options)
        if for_reply.n != 1:
            raise InputError(f"n is {for_reply.n}, but a conversation goes on with one reply; use engine.chat()")
        kept, prompt = self._fit(questions, for_template, for_generation.get("max_tokens"))
        generation = self._start(prompt.tokens, for_generation, continues=False, tools=prompt.tools)

        dropped = {id(message) for message in self.messages} - {id(message) for message in kept}

        def add_turn(reply: Message) -> None:
            if generation.summary.finish_reason in _CUT_SHORT and reply == _NOTHING:
                return  # it was stopped before the first token: as if it had not been asked
            remaining = [message for message in self.messages if id(message) not in dropped]
            self.messages[:] = [*remaining, *questions, reply]

        return self._frontend.reply(
            prompt, (answer for answer in [generation]), logprobs=for_reply.logprobs, on_reply=add_turn
        )

    def _fit(
        self, questions: list[Message], options: TemplateOptions, max_tokens: int | None
    ) -> tuple[list[Message], ChatPrompt]:
        """The messages before ``questions`` that fit into the context with them and an answer, and the prompt."""
        kept = list(self.messages)
        if self._overflow == "stop":
            return kept, self._frontend.encode_chat([*kept, *questions], options)
        share = self._transcript.capacity // _MIN_ANSWER
        limit = self._transcript.capacity - min(max_tokens or share, share)
        while True:
            shorter = _without_oldest_turn(kept)
            is_last = shorter == kept
            try:
                prompt = self._frontend.encode_chat([*kept, *questions], options)
            except PromptError:  # too long to be encoded
                if is_last:
                    raise
            else:
                if is_last or len(prompt.tokens) <= limit:
                    return kept, prompt
            kept = shorter

    def reset(self) -> None:
        """Clear the messages; the cache stays, so that the next prompt can reuse a common prefix."""
        with self._alone():
            self._stop_running()
            self.messages.clear()

    def close(self) -> None:
        """End a running answer and free the cache; later calls raise BackendError, except this one.

        Raises:
            SessionBusyError: another thread uses the session.
        """
        with self._alone():
            self._stop_running()
            self._transcript.close()

    def _start(
        self, prompt: Sequence[int], options: GenerateOptions, *, continues: bool, tools: ToolPlan | None = None
    ) -> Generation:
        with self._alone():
            self._stop_running()
            self._running = self._frontend.generate(self._transcript, prompt, options, continues=continues, tools=tools)
            return self._running

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Admit one thread at a time."""
        if not self._lock.acquire(blocking=False):
            raise SessionBusyError(
                "this session is used by another thread; make one session per thread (engine.session()), or wait for "
                "the other's answer"
            )
        try:
            yield
        finally:
            self._lock.release()

    def _stop_running(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _without_oldest_turn(messages: list[Message]) -> list[Message]:
    """``messages`` without the first user message and what follows up to the next; system messages stay."""
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        return messages
    end = users[1] if users[1:] else len(messages)
    turn = messages[users[0] : end]
    return messages[: users[0]] + [message for message in turn if message["role"] == "system"] + messages[end:]
