"""``Session``: a conversation whose cache stays between turns, so that a turn costs only its new tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, Unpack

from sprat.runtime.backends.protocol import TokenStream
from sprat.runtime.chat.completions import ChatCompletion, ChatStream, Message
from sprat.runtime.frontend import Frontend
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.options import GenerateOptions
from sprat.runtime.generate.transcript import Transcript

__all__ = ["Session"]


class Session:
    """One conversation or document at a time; made by :meth:`sprat.runtime.engine.Engine.session`.

    ``generate`` takes the whole prompt every time, and processes only what differs from the turn before. ``chat``
    remembers the messages itself. A new answer ends the one that is still running.

    Args:
        frontend: tokenizer and template of the model.
        stream: an empty sequence; closed with the session.

    Attributes:
        messages: the conversation so far; may be edited, the cache follows.
    """

    def __init__(self, frontend: Frontend, stream: TokenStream) -> None:
        self.messages: list[Message] = []
        self._frontend = frontend
        self._transcript = Transcript(stream)
        self._running: Generation | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens in the cache."""
        return tuple(self._transcript.tokens)

    def generate(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> Generation:
        """Continue ``prompt``; see :meth:`sprat.runtime.engine.Engine.generate`."""
        return self._start(self._frontend.encode(prompt), options, continues=True)

    def chat(self, text: str, **options: Unpack[GenerateOptions]) -> ChatCompletion:
        """Say ``text`` as the user and return the whole reply, in OpenAI's shape."""
        return self.stream_chat(text, **options).completion()

    def stream_chat(self, text: str, **options: Unpack[GenerateOptions]) -> ChatStream:
        """Say ``text`` as the user and return the reply as it comes; it joins ``messages`` when it has ended."""
        question = Message(role="user", content=text)

        def remember(reply: Message) -> None:
            self.messages += [question, reply]

        prompt = self._frontend.encode_chat([*self.messages, question])
        generation = self._start(prompt.tokens, options, continues=False)
        return self._frontend.reply(prompt, generation, on_reply=remember)

    def reset(self) -> None:
        """Forget the conversation; the cache keeps what the next prompt may share."""
        self._stop_running()
        self.messages.clear()

    def close(self) -> None:
        """End what is running and free the cache."""
        self._stop_running()
        self._transcript.close()

    def _start(self, prompt: Sequence[int], options: GenerateOptions, *, continues: bool) -> Generation:
        self._stop_running()
        self._running = self._frontend.generate(self._transcript, prompt, options, continues=continues)
        return self._running

    def _stop_running(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
