"""``Session``: a conversation that keeps its KV cache between turns, so that a turn processes only its new tokens."""

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
    """One conversation with its KV cache; create it with :meth:`sprat.runtime.engine.Engine.session`.

    ``generate`` takes the whole prompt each time and processes only what follows the common prefix with the tokens in
    the cache. ``chat`` keeps the messages itself. A new answer ends one that is still running.

    Args:
        frontend: tokenizer and chat template of the model.
        stream: an empty token stream; closed with the session.

    Attributes:
        messages: the conversation so far. It may be edited: the next turn processes what changed.
    """

    def __init__(self, frontend: Frontend, stream: TokenStream) -> None:
        self.messages: list[Message] = []
        self._frontend = frontend
        self._transcript = Transcript(stream)
        self._running: Generation | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens in the cache."""
        return tuple(self._transcript.tokens)

    def generate(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> Generation:
        """Continue ``prompt``; see :meth:`sprat.runtime.engine.Engine.generate`."""
        return self._start(self._frontend.encode(prompt), options, continues=True)

    def chat(self, text: str, **options: Unpack[GenerateOptions]) -> ChatCompletion:
        """Add ``text`` as a user message and return the whole reply, in OpenAI's format."""
        return self.stream_chat(text, **options).completion()

    def stream_chat(self, text: str, **options: Unpack[GenerateOptions]) -> ChatStream:
        """Add ``text`` as a user message and stream the reply; both are added to ``messages`` when it has ended."""
        question = Message(role="user", content=text)

        def add_turn(reply: Message) -> None:
            self.messages += [question, reply]

        prompt = self._frontend.encode_chat([*self.messages, question])
        generation = self._start(prompt.tokens, options, continues=False)
        return self._frontend.reply(prompt, generation, on_reply=add_turn)

    def reset(self) -> None:
        """Clear the messages; the cache stays, so that the next prompt can reuse a common prefix."""
        self._stop_running()
        self.messages.clear()

    def close(self) -> None:
        """End a running answer and free the cache."""
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
