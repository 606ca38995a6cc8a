"""``Session``: a conversation whose cache stays between turns, so that a turn costs only its new tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, Unpack

from sprat.errors import PromptError
from sprat.quant.formats.block import F32Array
from sprat.runtime.backends.protocol import TokenStream
from sprat.runtime.chat.completions import ChatCompletion, ChatStream, Message
from sprat.runtime.chat.reasoning import ReasoningSplitter
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.options import GenerateOptions, split_options
from sprat.runtime.generate.sampling import Sampler

if TYPE_CHECKING:
    from sprat.runtime.engine import Engine

__all__ = ["Session", "Transcript"]


class Transcript:
    """A token stream that remembers its tokens, so that a prompt with the same beginning can go on from there."""

    def __init__(self, stream: TokenStream) -> None:
        self._stream = stream
        self._tokens: list[int] = []

    @property
    def tokens(self) -> Sequence[int]:
        """Tokens in the cache."""
        return self._tokens

    @property
    def capacity(self) -> int:
        """Tokens that the cache can hold."""
        return self._stream.capacity

    def extend(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``."""
        logits = self._stream.extend(tokens)
        self._tokens += tokens
        return logits

    def rewind(self, prompt: Sequence[int]) -> None:
        """Keep what ``prompt`` begins with too, but never all of it: the logits after its last token are needed."""
        both = zip(self._tokens, prompt[:-1], strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], both))
        self._stream.truncate(common)
        del self._tokens[common:]

    def close(self) -> None:
        """Free the cache."""
        self._stream.close()


class Session:
    """One conversation or document at a time; made by :meth:`sprat.runtime.engine.Engine.session`.

    ``generate`` takes the whole prompt every time, and processes only what differs from the turn before. ``chat``
    remembers the messages itself. A new answer ends the one that is still running.

    Attributes:
        messages: the conversation so far; may be edited, the cache follows.
    """

    def __init__(self, engine: Engine, stream: TokenStream) -> None:
        self.messages: list[Message] = []
        self._engine = engine
        self._transcript = Transcript(stream)
        self._running: Generation | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens in the cache."""
        return tuple(self._transcript.tokens)

    def generate(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> Generation:
        """Continue ``prompt``; see :meth:`sprat.runtime.engine.Engine.generate`."""
        return self.start(self._engine.encode(prompt), options, continues=True)

    def chat(self, text: str, **options: Unpack[GenerateOptions]) -> ChatCompletion:
        """Say ``text`` as the user and return the whole reply, in OpenAI's shape."""
        return self.stream_chat(text, **options).completion()

    def stream_chat(self, text: str, **options: Unpack[GenerateOptions]) -> ChatStream:
        """Say ``text`` as the user and return the reply as it comes; it joins ``messages`` when it has ended."""
        question = Message(role="user", content=text)

        def remember(reply: Message) -> None:
            self.messages += [question, reply]

        return self.start_chat([*self.messages, question], options, on_reply=remember)

    def reset(self) -> None:
        """Forget the conversation; the cache keeps what the next prompt may share."""
        self._stop_running()
        self.messages.clear()

    def close(self) -> None:
        """End what is running and free the cache."""
        self._stop_running()
        self._transcript.close()

    def start(
        self,
        prompt: Sequence[int],
        options: GenerateOptions,
        *,
        continues: bool,
        on_end: Callable[[], None] = lambda: None,
    ) -> Generation:
        """Begin an answer to checked token ids.

        Args:
            prompt: the whole prompt.
            options: the caller's keywords.
            continues: the answer goes on in the prompt's text, rather than beginning a message.
            on_end: called once when the answer has ended.

        Raises:
            PromptError: the prompt leaves no room for an answer.
        """
        sampling, limits = split_options(options)
        if len(prompt) >= self._transcript.capacity:
            raise PromptError(
                f"the prompt has {len(prompt)} tokens, the context holds {self._transcript.capacity} with the answer; "
                "shorten the prompt, or load the model with a larger context"
            )
        self._stop_running()
        self._transcript.rewind(prompt)
        self._running = Generation(
            self._transcript,
            prompt,
            sampler=Sampler(sampling),
            decoder=self._engine.tokenizer.stream_decoder(continues=continues),
            end_ids=self._engine.tokenizer.eos_ids,
            limits=limits,
            batch=self._engine.batch,
            on_end=on_end,
        )
        return self._running

    def start_chat(
        self,
        messages: Sequence[Message],
        options: GenerateOptions,
        *,
        on_reply: Callable[[Message], None] = lambda _reply: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> ChatStream:
        """Begin the reply to a conversation.

        Args:
            messages: the conversation, the user's last message at its end.
            options: the caller's keywords.
            on_reply: called with the reply once it is complete.
            on_end: called once when the answer has ended, in whatever way.

        Raises:
            TemplateError: the model has no chat template, or it fails.
            PromptError: the conversation leaves no room for a reply.
        """
        prompt = self._engine.encode_chat(messages)
        generation = self.start(prompt.tokens, options, continues=False, on_end=on_end)
        splitter = ReasoningSplitter(prompt.text)
        return ChatStream(generation, splitter, model=self._engine.name, on_reply=on_reply)

    def _stop_running(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
