"""``Session``: a conversation that keeps its KV cache between turns, so that a turn processes only its new tokens."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, Unpack, cast

from sprat.boundary import public_call
from sprat.errors import InputError, SessionBusyError
from sprat.files import checked_path
from sprat.runtime.cache import Cache
from sprat.runtime.chat.completions import ChatCompletion, ChatStream, Message
from sprat.runtime.chat.prompt import ChatOptions, ChatPrompt, message_fields, reply_options, split_chat_options
from sprat.runtime.chat.tools.plan import ToolPlan
from sprat.runtime.frontend import Frontend
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.options import GenerateOptions
from sprat.runtime.generate.results import FinishReason
from sprat.runtime.generate.transcript import Transcript
from sprat.runtime.overflow import Fitting, Overflow, last_turn
from sprat.runtime.prefix.saved_state import StateIdentity, read_state, write_state

__all__ = ["Session"]

_CUT_SHORT = {FinishReason.CANCELLED, FinishReason.TIMEOUT}
_NOTHING = Message(role="assistant", content="")


class Session:
    """One conversation with its KV cache; create it with :meth:`sprat.runtime.engine.Engine.session`.

    ``generate`` takes the whole prompt each time and processes only what follows the common prefix with the tokens in
    the cache. ``chat`` keeps the messages itself. A new answer ends one that is still running.

    A session is for one thread at a time, of which a second one is told with
    :class:`~sprat.errors.SessionBusyError`; sessions of one engine may run in several threads.

    Args:
        frontend: tokenizer and chat template of the model.
        transcript: an empty one; closed with the session.
        overflow: what ``chat`` does when the conversation fills the context; see :meth:`Engine.session`.
        identify: what the entries of a cache depend on, for files of them.

    Attributes:
        messages: the conversation so far. It may be edited: the next turn processes what changed.
    """

    def __init__(
        self,
        frontend: Frontend,
        transcript: Transcript,
        *,
        overflow: Overflow = "error",
        identify: Callable[[Cache], StateIdentity],
    ) -> None:
        self._transcript = transcript
        self.messages: list[Message] = []
        self._overflow, self._identify = overflow, identify
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
            PromptError: the conversation is longer than the context; unless ``overflow`` is ``"error"``, the new
                message alone is.
            SessionBusyError: another thread uses the session.
        """
        questions = [*text] if isinstance(text, list | tuple) else [Message(role="user", content=text)]  # type: ignore[typeddict-item]
        for_template, for_generation = split_chat_options(options)
        for_reply = reply_options(options)
        if for_reply.n != 1:
            raise InputError(f"n is {for_reply.n}, but a conversation goes on with one reply; use engine.chat()")
        before, turn = last_turn([*self.messages, *questions])
        fitting = Fitting(self._frontend, self._transcript.capacity, self._overflow, self._reply)
        kept, prompt = fitting.fit(before, turn, for_template, for_generation)
        generation = self._start(prompt.tokens, for_generation, continues=False, tools=prompt.tools)

        def add_turn(reply: Message) -> None:
            if generation.summary.finish_reason in _CUT_SHORT and reply == _NOTHING:
                return  # it was stopped before the first token: as if it had not been asked
            self._replace(before, kept)
            self.messages += [*questions, reply]

        return self._frontend.reply(
            prompt, (answer for answer in [generation]), logprobs=for_reply.logprobs, on_reply=add_turn
        )

    def _replace(self, before: list[Message], kept: list[Message]) -> None:
        """Drop from the messages, which may have been edited meanwhile, what is not kept; add a summary."""
        old, new = {id(message) for message in before}, {id(message) for message in kept}
        self.messages[:] = [message for message in self.messages if id(message) not in old - new]
        n_system = next(
            (i for i, message in enumerate(self.messages) if message_fields(message).get("role") != "system"), 0
        )
        self.messages[n_system:n_system] = [message for message in kept if id(message) not in old]

    def _reply(self, prompt: ChatPrompt, options: GenerateOptions) -> ChatStream:
        generation = self._start(prompt.tokens, options, continues=False)
        return self._frontend.reply(prompt, (answer for answer in [generation]))

    @public_call
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation and its KV cache to a file, for :meth:`restore` in this or another process.

        The file is of the size of the entries, is written whole or not at all, and is good for this model, backend and
        cache type. It holds the conversation in plain text.

        Raises:
            InputError: the path cannot be used, or a message is not what JSON can hold.
            BackendError: the backend does not give its entries out (``llamacpp``), or the session was closed.
            SessionBusyError: another thread uses the session.
        """
        with self._alone():
            tokens, entries = self._transcript.saved()
            messages = [message_fields(message) or message for message in self.messages]
            write_state(checked_path(path), self._identify(self._transcript.cache), tokens, [entries], messages)

    @public_call
    def restore(self, path: str | os.PathLike[str]) -> None:
        """Replace the conversation and the cache by those that :meth:`save` wrote.

        Raises:
            SavedStateError: the file is damaged, or of another model, backend or cache type. The session is as it was;
                if the file changed while it was copied, the next turn processes the whole conversation.
            PromptError: its tokens do not fit into the session's context.
            BackendError: the backend takes no entries (``llamacpp``), or the session was closed.
            SessionBusyError: another thread uses the session.
        """
        with self._alone():
            self._stop_running()
            cache = self._transcript.cache
            identity, most_tokens = self._identify(cache), self._transcript.capacity
            tokens, entries, messages = read_state(checked_path(path), identity, cache, most_tokens)
            if len(tokens):
                self._frontend.encode(tokens.tolist())  # ids of this vocabulary
            self._transcript.restore(tokens.tolist(), entries)
            self.messages[:] = cast("list[Message]", messages)

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
