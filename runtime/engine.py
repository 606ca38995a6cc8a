"""``Engine``: a loaded model that generates text. The entry point for applications.

::

    with Engine.load("student-int4", memory="3GB") as engine:
        reply = engine.chat([{"role": "user", "content": "What is the capital of France?"}])
        print(reply["choices"][0]["message"]["content"])
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Self, Unpack

import numpy as np

from sprat.arrays import F32Array
from sprat.boundary import public_call
from sprat.devices.plan.context_settings import CacheType
from sprat.errors import BackendError, InputError, PromptError
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.backends.protocol import Backend, TokenStream
from sprat.runtime.backends.registry import (
    BackendChoice,
    LoadRequest,
    choose,
    chosen_footprint,
    chosen_request,
    open_backend,
    stream_bytes,
)
from sprat.runtime.cache import Storage
from sprat.runtime.chat.completions import ChatCompletion, ChatStream
from sprat.runtime.chat.prompt import (
    ChatOptions,
    ChatPrompt,
    TemplateOptions,
    reply_options,
    split_chat_options,
)
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.files.model_file import check_model
from sprat.runtime.files.model_reference import locate_model_file
from sprat.runtime.frontend import Frontend
from sprat.runtime.generate.decision import Decision, decide
from sprat.runtime.generate.embedding import mean_pooled
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.options import GenerateOptions, split_options
from sprat.runtime.generate.sampling import SamplingParams
from sprat.runtime.generate.sampling_defaults import SamplingDefaults
from sprat.runtime.generate.speculate.speculator import Speculation
from sprat.runtime.generate.transcript import Transcript
from sprat.runtime.gpu_option import GPUOption
from sprat.runtime.loading.limits import checked_context, load_limits
from sprat.runtime.loading.options import LoadKeywords, LoadOptions
from sprat.runtime.loading.sharing import Identify, cannot_save, identifier, prefixes_of, speculation_of
from sprat.runtime.memory.cache_budget import CacheBudget
from sprat.runtime.memory.footprint import DEFAULT_BATCH
from sprat.runtime.open_model import OpenModel, open_model
from sprat.runtime.overflow import Fitting, Overflow, checked_overflow
from sprat.runtime.prefix.cache import PrefixCache
from sprat.runtime.session import Session
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["Engine"]


class Engine:
    """A backend with its tokenizer and chat template.

    :meth:`load` reads them from a bundle or a model file; the constructor takes them as they are.

    Args:
        backend: the loaded weights; closed with the engine.
        tokenizer: the model's tokenizer.
        template: the model's chat template; without one, ``chat`` raises an error.
        context: maximum number of tokens of prompt and answer together; by default the model's limit, at most 4096.
        batch: prompt tokens of one forward pass.
        name: the model's name, for chat completions.
        sampling: the model's sampling parameters (names of :class:`~sprat.runtime.generate.sampling.SamplingParams`),
            for those that a caller does not give.
        backend_choice: why this backend was chosen.
        budget: the memory that the KV caches of all sessions and answers share; by default without a limit.
        prefixes: entries of earlier prompts; ``None`` for none.
        speculation: guesses tokens; ``None`` for one pass for each.
        identify: what the entries of a cache depend on; by default sessions cannot be saved.

    Threads: one engine may be used by several threads, one session by one thread at a time (docs/embedding.md).

    Raises:
        InputError: ``context`` is longer than the model's.
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
        sampling: SamplingDefaults = MappingProxyType({}),
        backend_choice: BackendChoice | None = None,
        budget: CacheBudget | None = None,
        prefixes: PrefixCache | None = None,
        speculation: Speculation | None = None,
        identify: Identify = cannot_save,
    ) -> None:
        self.backend = backend
        self.context = checked_context(context, backend.max_context)
        self._budget = budget or CacheBudget()
        self._prefixes, self._identify = prefixes, identify
        self._is_closed = False
        self.frontend = Frontend(
            tokenizer=tokenizer,
            template=template,
            vocab_size=backend.vocab_size,
            context=self.context,
            batch=batch,
            name=name,
            sampling=sampling,
            speculation=speculation,
        )
        self.backend_choice = backend_choice or BackendChoice(backend.name)

    @classmethod
    @public_call
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        draft: Engine | None = None,
        progress: ReportProgress = no_progress,
        **options: Unpack[LoadKeywords],
    ) -> Self:
        """Load a bundle, a GGUF or an ONNX model; one that does not fit is rejected before its weights are read.

        Args:
            path: a bundle written by ``sprat export``, a ``.gguf`` file, a ``.onnx`` file written by sprat, a folder
                with one of them, or a repository in the local Hugging Face cache (``"org/name"``,
                ``"org/name@revision"``, ``"org/name/file.gguf"``, ``"org/name:Q8_0"``).
            draft: the engine of a smaller model with the same vocabulary, which guesses tokens; see ``speculate``. It
                is used as long as this one is, and closed by you.
            progress: of ``check="hashes"``, in bytes.
            options: ``device``, ``memory`` and the other fields of :class:`~sprat.runtime.loading.options.LoadOptions`.

        Raises:
            InputError: the model, the device or an option is invalid; see :mod:`sprat.errors` for the subclasses.
            DoesNotFitError: the model needs more memory than the limit.
            BackendError: no backend can run it on this machine, or it cannot be isolated.
            BundleError: ``check="hashes"`` found damage, or the model has no manifest with hashes.
        """
        wanted = LoadOptions.of("Engine.load()", options)
        path = locate_model_file(path)
        check_model(path, wanted.check, progress)
        return cls._of(open_model(path, wanted.backend_name, trust=wanted.trust), wanted, draft)

    @classmethod
    def _of(cls, model: OpenModel, wanted: LoadOptions, draft: Engine | None) -> Self:
        limits = load_limits(
            model,
            device=wanted.device,
            memory=wanted.memory,
            context=wanted.context,
            batch=wanted.batch,
            force=wanted.force,
            isolated=wanted.isolate or wanted.provider is not None,
        )
        request = LoadRequest(
            file=model.file,
            spec=model.spec,
            context=limits.context,
            batch=limits.batch,
            n_threads=limits.n_threads,
            memory_bytes=limits.memory_bytes,
            streams=limits.streams,
            cores=limits.cores,
            cache=_of_native(wanted.cache) or (None if wanted.exact else limits.cache),
            wishes=wanted.wishes,
            deterministic=wanted.deterministic,
            exact=wanted.exact,
            isolated=wanted.isolate,
            shields=hasattr(os, "memfd_create"),  # Linux: what the two processes share
            gpu=GPUOption.of(wanted.gpu),
            accelerator=limits.accelerator,
            provider=wanted.provider_settings(limits.accelerator),
            force=wanted.force,
        )
        choice, tokenizer = choose(wanted.backend_name, request), model.tokenizer()
        request = chosen_request(choice, request)
        budget = CacheBudget.of(chosen_footprint(choice, request), request.memory_bytes, stream_bytes(choice, request))
        identify = identifier(request, choice)
        with contextlib.ExitStack() as on_error:
            backend = _isolated(choice, request) if request.own_process else open_backend(choice, request)
            on_error.callback(backend.close)
            engine = cls(
                backend,
                tokenizer,
                template=model.template(),
                context=limits.context,
                batch=choice.gpu.settings.batch if choice.gpu else limits.batch,
                name=model.name,
                sampling=model.sampling(),
                backend_choice=choice,
                budget=budget,
                prefixes=prefixes_of(wanted.prefix_cache, request, choice, backend, budget, identify),
                speculation=speculation_of(wanted, choice, backend, tokenizer, draft),
                identify=identify,
            )
            on_error.pop_all()
        return engine

    def generate(
        self, prompt: str | Sequence[int], *, suffix: str | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Generate text after ``prompt``, piece by piece.

        Args:
            prompt: text, to which the BOS token is added if the model wants one, and in which special tokens are
                encoded as plain text; or token ids, used as they are.
            suffix: text after the answer: the model fills in between ``prompt`` and it (fill-in-the-middle).
            **options: sampling parameters (:class:`~sprat.runtime.generate.sampling.SamplingParams`; by default the
                model's, :attr:`sampling`), stop conditions (:class:`~sprat.runtime.generate.options.StopConditions`)
                and ``on_prefill``.

        Returns:
            An iterator of pieces, with ``text()``, ``cancel()`` and, once the answer has ended, ``summary``.

        Raises:
            PromptError: the prompt is empty, too long, or holds token ids outside the vocabulary; or there is a
                ``suffix``, and the prompt is not text or the model has no tokens for it.
            InputError: an option is out of range.
            DoesNotFitError: the open sessions leave no memory for the answer's KV cache.
            BackendError: the engine was closed.
        """
        _, stop_conditions = split_options(options)
        tokens = self.encode(prompt) if suffix is None else self._encode_between(prompt, suffix)
        capacity = min(self.context, len(tokens) + (stop_conditions.max_tokens or self.context))
        with self._new_transcript(capacity, tokens) as transcript:
            return self.frontend.generate(transcript, tokens, options, continues=True, on_end=transcript.close)

    def _encode_between(self, prompt: str | Sequence[int], suffix: str) -> list[int]:
        if not isinstance(prompt, str):
            raise PromptError("the prompt is token ids, expected text beside a suffix; encode both into the prompt")
        return self.frontend.encode_between(prompt, suffix)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        overflow: Overflow = "error",
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion:
        """The whole reply to a conversation, in OpenAI's format, with the reasoning in ``reasoning_content``.

        Args:
            messages: dicts ``{"role": ..., "content": ...}``, oldest first; further fields, such as ``tool_calls``, go
                to the template.
            overflow: what to do with a conversation that fills the context; see :meth:`session`.
            **options: as for :meth:`generate`, and what the chat template is given
                (:class:`~sprat.runtime.chat.prompt.TemplateOptions`): ``tools``, ``documents``, ``chat_template``,
                ``chat_template_kwargs``, and ``volatile``, texts that change from call to call.

        Raises:
            TemplateError: the model has no chat template, or it fails on these messages.
            PromptError: the conversation is longer than the context; unless ``overflow`` is ``"error"``, its last turn
                is.
            InputError: an option is out of range.
            DoesNotFitError: the open sessions leave no memory for the answer's KV cache.
            BackendError: the engine was closed.
        """
        return self.stream_chat(messages, overflow=overflow, **options).completion()

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        overflow: Overflow = "error",
        **options: Unpack[ChatOptions],
    ) -> ChatStream:
        """Stream the reply to a conversation in chunks, in OpenAI's format; otherwise like :meth:`chat`."""
        self._check_open()
        for_template, for_generation = split_chat_options(options)
        for_reply = reply_options(options)
        fitting = Fitting(self.frontend, self.context, checked_overflow(overflow), self._reply)
        prompt = fitting.prompt(messages, for_template, for_generation)
        generations = self._answers(prompt, for_generation, for_reply.n)
        return self.frontend.reply(prompt, generations, logprobs=for_reply.logprobs)

    def _reply(self, prompt: ChatPrompt, options: GenerateOptions) -> ChatStream:
        return self.frontend.reply(prompt, self._answers(prompt, options, 1))

    def _answers(self, prompt: ChatPrompt, options: GenerateOptions, count: int) -> Generator[Generation]:
        """``count`` answers to one prompt, each begun when it is taken; they share its KV entries."""
        _, stop_conditions = split_options(options)
        capacity = min(self.context, len(prompt.tokens) + (stop_conditions.max_tokens or self.context))
        with self._new_transcript(capacity, prompt.tokens) as transcript, contextlib.closing(transcript):
            for index in range(count):
                seed = options.get("seed")
                seeded: GenerateOptions = options if seed is None else {**options, "seed": seed + index}
                yield self.frontend.generate(transcript, prompt.tokens, seeded, continues=False, tools=prompt.tools)

    def decide(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        options: Sequence[str],
        *,
        temperature: float = 1.0,
        **template: Unpack[TemplateOptions],
    ) -> Decision:
        """The probabilities of given answers, computed from the logits in one prefill: nothing is sampled.

        Where an option is the beginning of another one, the end of the answer counts, too. docs/embedding.md says how
        to calibrate.

        Args:
            prompt: messages as for :meth:`chat`, after which the model answers without reasoning; or text, which is
                continued as by :meth:`generate`.
            options: the answers, as the model would write them.
            temperature: above 1 the decision is less certain, below 1 more.
            **template: what the chat template is given; :meth:`chat` has the names.

        Returns:
            A dict of option and probability, the most probable first, with ``best``, ``logprobs`` and ``mass``.

        Raises:
            InputError: there are fewer than two options, or one is empty or appears twice.
            PromptError: prompt and options are longer than the context.
            TemplateError: the model has no chat template, or it fails on these messages.
        """
        if not isinstance(temperature, Real) or isinstance(temperature, bool) or not 1e-30 <= temperature <= 1e30:
            raise InputError(f"temperature is {temperature!r}, expected a number between 1e-30 and 1e+30")
        if isinstance(prompt, str):
            tokens = self.encode(prompt)
        else:
            tokens = self.frontend.answer_tokens(self.encode_chat(prompt, **template))
        encoded = self.frontend.encode_options(options)
        capacity = self._checked_length(len(tokens) + max(map(len, encoded.values())))
        with self._new_transcript(capacity, tokens) as transcript, contextlib.closing(transcript):
            return decide(
                transcript,
                tokens,
                encoded,
                ends=self.tokenizer.eog_ids,
                batch=self.frontend.batch,
                temperature=float(temperature),
            )

    def embed(self, texts: str | Sequence[str | Sequence[int]], *, normalize: bool = True) -> F32Array:
        """Embeddings of texts: the mean over the tokens of the last layer's normed hidden states.

        Models that generate text were not trained for it: their vectors compare roughly, those of an embedding model
        well.

        Args:
            texts: one text, or several, each as text or as token ids.
            normalize: scale each vector to length 1, so that a product of two is their cosine.

        Returns:
            ``(hidden_size,)`` for one text, ``(n, hidden_size)`` for several.

        Raises:
            PromptError: a text is empty, or longer than the context.
            BackendError: the backend computes logits only (``llamacpp``, ``onnx``), or the engine was closed.
        """
        if not isinstance(texts, str):
            return np.stack([self._embedded(text, normalize=normalize) for text in _texts(texts)])
        return self._embedded(texts, normalize=normalize)

    def _embedded(self, text: str | Sequence[int], *, normalize: bool) -> F32Array:
        tokens = self.encode(text)
        stream, give_back = self.new_stream(self._checked_length(len(tokens)))
        try:
            mean = mean_pooled(stream, tokens, self.frontend.batch)
        finally:
            stream.close()
            give_back()
        return (mean / np.linalg.norm(mean) if normalize else mean).astype(np.float32)

    def _checked_length(self, n_tokens: int) -> int:
        if n_tokens > self.context:
            raise PromptError(
                f"the text has {n_tokens} tokens, the context holds {self.context}; shorten it, or load the model with "
                "a larger context"
            )
        return n_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.frontend.tokenizer

    @property
    def sampling(self) -> SamplingParams:
        """The sampling parameters that apply where a call gives none: the model's, and sprat's defaults."""
        return split_options({}, self.frontend.sampling)[0]

    @property
    def name(self) -> str:
        """The model's name in chat completions."""
        return self.frontend.name

    def needed_bytes(self, n_answers: int) -> int:
        """Memory for weights, buffers, and the KV caches of ``n_answers`` of the whole context at a time.

        0 for a model that was not loaded from a GGUF or ONNX file.
        """
        return self._budget.needed_bytes(n_answers, self.context)

    @public_call
    def session(
        self,
        *,
        overflow: Overflow = "error",
        context: int | None = None,
        restore: str | os.PathLike[str] | None = None,
    ) -> Session:
        """A conversation that keeps its KV cache between turns. Close it, or use it in a ``with`` statement.

        Args:
            context: tokens that the conversation can hold; by default the engine's. The memory for all of them is
                counted against ``memory`` until the session is closed.
            overflow: what ``chat`` does when the conversation fills the context: ``"error"`` raises
                :class:`~sprat.errors.PromptError` and leaves the conversation as it is, ``"shift"`` drops the oldest
                turns and keeps system messages, ``"summarise"`` first lets the model summarise those turns in a system
                message (where the summary is empty, it is left out).
            restore: a file of :meth:`Session.save`; the conversation goes on from there.

        Raises:
            InputError: ``overflow`` is none of these, or ``context`` is longer than the engine's.
            SavedStateError: ``restore`` is damaged, or of another model, backend or cache type.
            PromptError: the saved conversation does not fit into ``context``.
            DoesNotFitError: the memory limit leaves too little for another cache; the message says what fits.
            BackendError: the engine was closed.
        """
        self._check_open()
        policy = checked_overflow(overflow)
        capacity = self.context if context is None else context
        if not isinstance(capacity, Integral) or not 0 < capacity <= self.context:
            raise InputError(f"context is {context!r}, expected 1 to {self.context}, the engine's")
        transcript = Transcript(*self.new_stream(capacity), self._prefixes)
        session = Session(self.frontend, transcript, overflow=policy, identify=self._identify)
        if restore is not None:
            with contextlib.ExitStack() as on_error:
                on_error.callback(session.close)
                session.restore(restore)
                on_error.pop_all()
        return session

    def restore(self, path: str | os.PathLike[str], *, overflow: Overflow = "error") -> Session:
        """The session that :meth:`Session.save` wrote to ``path``; as ``session(restore=path)``."""
        return self.session(overflow=overflow, restore=path)

    def new_stream(self, capacity: int) -> tuple[TokenStream, Callable[[], object]]:
        """An empty sequence of the backend, within the memory limit, and what gives its memory back once it is closed.

        Raises:
            DoesNotFitError: the memory limit leaves too little.
            BackendError: the engine was closed.
        """
        self._check_open()
        return self._budget.new_stream(self.backend.new_stream, capacity)

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt, checked.

        Raises:
            PromptError: the prompt is empty, or a token id is outside the vocabulary.
            BackendError: the engine was closed.
        """
        self._check_open()
        return self.frontend.encode(prompt)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[TemplateOptions]) -> ChatPrompt:
        """Render a conversation with the chat template, and encode it.

        Args:
            messages: dicts ``{"role": ..., "content": ...}``, oldest first.
            **options: what the chat template is given (:class:`~sprat.runtime.chat.prompt.TemplateOptions`).

        Raises:
            TemplateError: the model has no chat template, or it fails on these messages.
            PromptError: there is no message, or one has no role or content.
            BackendError: the engine was closed.
        """
        self._check_open()
        return self.frontend.encode_chat(messages, options)

    def close(self) -> None:
        """Free the weights, the caches of all sessions, and the threads; once more does nothing.

        Later calls raise BackendError, also those of sessions and of answers that have not ended. A forward pass that
        another thread runs is computed to its end first; ``cancel()`` its answer to end it now.
        """
        if self._prefixes is not None and not self._is_closed:
            self._prefixes.close()
        self._is_closed = True
        self.backend.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise BackendError(f"{self.name}: the engine was closed; load the model again")

    @contextlib.contextmanager
    def _new_transcript(self, capacity: int, prompt: Sequence[int]) -> Iterator[Transcript]:
        """An empty transcript for one answer, which closes it when it ends; closed here if the answer cannot start."""
        if self._prefixes is not None:
            self._prefixes.touch(prompt)  # a stream may need the memory of others
        transcript = Transcript(*self.new_stream(max(capacity, 1)), self._prefixes)
        try:
            yield transcript
        except BaseException:
            transcript.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _isolated(choice: BackendChoice, request: LoadRequest) -> Backend:
    from sprat.runtime.isolation.backend import open_isolated  # imports sockets and processes

    return open_isolated(choice, request)


def _of_native(cache: CacheType | None) -> Storage | None:
    return None if cache == "int4" else cache  # only llama.cpp has it


def _texts(texts: object) -> Sequence[str | Sequence[int]]:
    """The texts to embed, checked but for their token ids.

    Raises:
        PromptError: they are no list of texts, or none.
    """
    if isinstance(texts, list | tuple) and texts and all(isinstance(text, str | list | tuple) for text in texts):
        return texts
    raise PromptError(
        f"the texts are {texts!r:.200}, expected a text or a list of at least one, each as text or as token ids"
    )
