"""``Engine``: a model ready to answer. What an app author touches first.

::

    with Engine.load("student-int4", memory="3GB") as engine:
        reply = engine.chat([{"role": "user", "content": "What is the capital of France?"}])
        print(reply["choices"][0]["message"]["content"])
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Self, Unpack

from sprat.runtime.backends.protocol import Backend
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, choose, open_backend
from sprat.runtime.cache import Storage
from sprat.runtime.chat.completions import ChatCompletion, ChatStream, Message
from sprat.runtime.chat.prompt import ChatPrompt
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.frontend import Frontend
from sprat.runtime.generate.generation import DEFAULT_BATCH, Generation
from sprat.runtime.generate.options import GenerateOptions
from sprat.runtime.generate.transcript import Transcript
from sprat.runtime.limits import checked_context, load_limits
from sprat.runtime.open_model import open_model
from sprat.runtime.session import Session
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["Engine"]


class Engine:
    """A backend, a tokenizer and a chat template, and the sessions over them.

    :meth:`load` reads them from a bundle or a model file; the constructor takes parts that are there already.

    Args:
        backend: weights, ready to run; closed with the engine.
        tokenizer: of the same model.
        template: how a conversation becomes a prompt; without one there is no ``chat``.
        context: tokens that prompt and answer may hold together; by default the model's own limit, at most 4096.
        batch: tokens of a prompt in one pass.
        name: the model's name, for chat results.
        backend_choice: why this backend.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        *,
        template: ChatTemplate | None = None,
        context: int | None = None,
        batch: int = DEFAULT_BATCH,
        name: str = "model",
        backend_choice: BackendChoice | None = None,
    ) -> None:
        self.backend = backend
        self.frontend = Frontend(
            tokenizer=tokenizer, template=template, vocab_size=backend.vocab_size, batch=batch, name=name
        )
        self.context = checked_context(context, backend.max_context)
        self.backend_choice = backend_choice or BackendChoice(backend.name)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str | None = None,
        memory: int | str | None = None,
        backend: str = "auto",
        context: int | None = None,
        force: bool = False,
        cache: Storage | None = None,
        deterministic: bool = False,
        exact: bool = False,
    ) -> Self:
        """Load a bundle, a GGUF or an ONNX model; it is refused before anything large is read if it does not fit.

        Args:
            path: a folder made by ``sprat export``, a ``.gguf`` file, or a ``.onnx`` file that sprat wrote.
            device: a profile (see ``sprat devices``) whose plan chooses threads, context, batch and cache; the model
                must fit it, whole or with experts read as they are needed.
            memory: hard budget, in bytes or as ``"3GB"``; replaces the device's.
            backend: a name that ``sprat doctor`` lists, or ``"auto"``; :attr:`backend_choice` explains what was taken.
            context: tokens that prompt and answer may hold together; by default the model's own limit, at most 4096,
                and on a device what fits.
            force: load what does not fit; the system then reads weights from storage again for every token.
            cache: what the native backend's cache keeps numbers as, ``"f16"`` or ``"int8"`` (about half of the bytes);
                replaces the device's. By default keys and values are kept in f16 and latents in int8.
            deterministic: only a backend that gives the same bits for the same tokens at every run. The native one
                always does, with any number of threads; a prompt that is cut otherwise differs by roundings.
            exact: only a backend that rounds nothing; the native one takes two digits of int8 and a float32 cache.

        Raises:
            InputError: the model, the device or a limit cannot be used; see :mod:`sprat.errors` for the kinds.
            DoesNotFitError: the model needs more than the budget.
            BackendError: no backend can run it here.
        """
        model = open_model(path, backend)
        limits = load_limits(model, device=device, memory=memory, context=context, force=force)
        request = LoadRequest(
            file=model.file,
            spec=model.spec,
            context=limits.context,
            n_threads=limits.n_threads,
            memory_bytes=limits.memory_bytes,
            streams=limits.streams,
            cores=limits.cores,
            cache=cache or (None if exact else limits.cache),
            deterministic=deterministic,
            exact=exact,
        )
        choice = choose(backend, request)
        tokenizer = model.tokenizer()
        return cls(
            open_backend(choice, request),
            tokenizer,
            template=model.template(tokenizer),
            context=limits.context,
            batch=limits.batch,
            name=model.name,
            backend_choice=choice,
        )

    def generate(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> Generation:
        """Continue ``prompt``, piece by piece.

        Args:
            prompt: text, which gets the model's BOS token and in which special tokens stay text; or token ids, taken
                as they are.
            **options: how to sample (:class:`~sprat.runtime.generate.sampling.SamplingParams`) and when to stop
                (:class:`~sprat.runtime.generate.options.Limits`).

        Returns:
            An iterator of pieces with ``text()``, ``cancel()`` and, after the end, ``summary``.

        Raises:
            PromptError: the prompt is empty, too long, or holds ids beyond the vocabulary.
            InputError: an option is out of its range.
        """
        tokens = self.encode(prompt)
        capacity = min(self.context, len(tokens) + (options.get("max_tokens") or self.context))
        with self._new_transcript(capacity) as transcript:
            return self.frontend.generate(transcript, tokens, options, continues=True, on_end=transcript.close)

    def chat(self, messages: Sequence[Message], **options: Unpack[GenerateOptions]) -> ChatCompletion:
        """The whole reply to a conversation, in OpenAI's shape, with the thoughts apart in ``reasoning_content``.

        Args:
            messages: ``{"role": ..., "content": ...}`` each, oldest first.
            **options: as for :meth:`generate`.

        Raises:
            TemplateError: the model has no chat template, or it fails on these messages.
            PromptError: the conversation is longer than the context.
        """
        return self.stream_chat(messages, **options).completion()

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[GenerateOptions]) -> ChatStream:
        """The reply to a conversation as it comes, in chunks of OpenAI's shape; otherwise like :meth:`chat`."""
        prompt = self.frontend.encode_chat(messages)
        with self._new_transcript(self.context) as transcript:
            generation = self.frontend.generate(
                transcript, prompt.tokens, options, continues=False, on_end=transcript.close
            )
        return self.frontend.reply(prompt, generation)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.frontend.tokenizer

    @property
    def name(self) -> str:
        """What the model is called in answers."""
        return self.frontend.name

    def session(self) -> Session:
        """A conversation whose cache stays between turns. Close it, or use it in a ``with`` statement."""
        return Session(self.frontend, self.backend.new_stream(self.context))

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt, checked.

        Raises:
            PromptError: the prompt is empty, or an id lies beyond the vocabulary.
        """
        return self.frontend.encode(prompt)

    def encode_chat(self, messages: Sequence[Message]) -> ChatPrompt:
        """The prompt that the chat template makes of a conversation.

        Raises:
            TemplateError: the model has no chat template, or it fails on these messages.
            PromptError: a message without text.
        """
        return self.frontend.encode_chat(messages)

    def close(self) -> None:
        """Free the weights."""
        self.backend.close()

    @contextlib.contextmanager
    def _new_transcript(self, capacity: int) -> Iterator[Transcript]:
        """An empty sequence for one answer, which closes it when it ends; closed here if the answer cannot begin."""
        transcript = Transcript(self.backend.new_stream(max(capacity, 1)))
        try:
            yield transcript
        except BaseException:
            transcript.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
