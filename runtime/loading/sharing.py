"""State shared by all answers of an engine, from its load options: the prefix cache and speculation."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from sprat.errors import BackendError, InputError
from sprat.native import ABI
from sprat.runtime.backends.protocol import Backend, TokenStream
from sprat.runtime.backends.registry import BackendChoice, LoadRequest, chosen_loader
from sprat.runtime.cache import Cache
from sprat.runtime.files.fingerprint import fingerprint, model_paths
from sprat.runtime.generate.speculate.draft_model import DraftModel
from sprat.runtime.generate.speculate.drafter import Drafter, FirstOf
from sprat.runtime.generate.speculate.pace import Pace
from sprat.runtime.generate.speculate.prompt_lookup import Forced, History, PromptLookup
from sprat.runtime.generate.speculate.speculator import Speculation
from sprat.runtime.loading.options import LoadOptions
from sprat.runtime.memory.cache_budget import CacheBudget
from sprat.runtime.models.model import MIN_TOKENS_TOGETHER
from sprat.runtime.prefix.cache import PrefixCache
from sprat.runtime.prefix.folder import PrefixFolder
from sprat.runtime.prefix.saved_state import StateIdentity
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["DraftEngine", "Identify", "cannot_save", "identifier", "prefixes_of", "speculation_of"]

Identify = Callable[[Cache], StateIdentity]

_DRAFTS_OF_AUTO = MIN_TOKENS_TOGETHER - 2  # beside the sampled token; more have other bits on the native backend
_CONTEXTS_ON_DISK = 4  # files of a prefix cache take at most the entries of so many full contexts


class DraftEngine(Protocol):
    """The engine of a small model that guesses for a large one."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the model."""

    @property
    def context(self) -> int:
        """Longest sequence, in tokens."""

    def new_stream(self, capacity: int) -> tuple[TokenStream, Callable[[], object]]:
        """An empty sequence, and a function that gives its memory back."""


def identifier(request: LoadRequest, choice: BackendChoice) -> Identify:
    """A function of the cache that returns the identity of its KV entries; model files are hashed at its first call."""
    producer = f"native, ABI {ABI}" if choice.name == "native" else choice.name
    if (grain := _grain(request)) > 1:
        producer += f", in chunks of {grain}"
    model = functools.cache(functools.partial(fingerprint, model_paths(request.file)))
    return lambda cache: StateIdentity(model(), producer, cache.geometry)


def cannot_save(_cache: Cache) -> StateIdentity:
    """The identity of a model that is no file.

    Raises:
        BackendError: always.
    """
    raise BackendError("this engine runs no model file, whose sessions could be told apart; export the checkpoint")


def prefixes_of(
    wanted: bool | str | os.PathLike[str],
    request: LoadRequest,
    choice: BackendChoice,
    backend: Backend,
    budget: CacheBudget,
    identify: Identify,
) -> PrefixCache | None:
    """The prefix cache of an engine; ``None`` if there is to be none, or the backend gives no entries.

    Raises:
        BackendError: ``wanted`` is a folder, and the backend gives no entries.
    """
    if wanted is False:
        return None
    gives_entries = chosen_loader(choice).gives_entries(request)
    if not gives_entries or request.own_process:
        if wanted is True:
            return None
        keeper = "a process of its own" if gives_entries else f"the {choice.name} backend"
        raise BackendError(
            f"prefix_cache is {os.fspath(wanted)!r}, but {keeper} does not give out its KV entries; load the model "
            "without isolate and provider, and with another backend, or leave the folder out"
        )
    limit_bytes, folder = budget.cost.nbytes(request.context), None
    if wanted is not True:
        folder = PrefixFolder(Path(wanted), _identity(backend, identify), _CONTEXTS_ON_DISK * limit_bytes)
    return PrefixCache(budget, limit_bytes, grain=_grain(request), folder=folder)


def speculation_of(
    wanted: LoadOptions, choice: BackendChoice, backend: Backend, tokenizer: Tokenizer, draft: DraftEngine | None
) -> Speculation | None:
    """Speculation settings of an engine; ``None`` without speculation.

    Raises:
        InputError: the vocabulary of ``draft`` is another one.
    """
    if draft is not None:
        _check_vocabulary(tokenizer, draft)
    keeps_bits = chosen_loader(choice).few_as_one
    if wanted.speculate == "off" or (wanted.deterministic and not keeps_bits):
        return None
    most = _DRAFTS_OF_AUTO if wanted.speculate == "auto" else wanted.speculate
    return Speculation(
        Pace(min(most, _DRAFTS_OF_AUTO) if wanted.deterministic else most),
        functools.partial(_drafter, draft, backend.vocab_size),
    )


def _grain(request: LoadRequest) -> int:
    """Whole chunks of a prompt, if the bits must not depend on earlier prompts."""
    return request.batch if request.deterministic else 1


def _drafter(
    draft: DraftEngine | None,
    vocab_size: int,
    prompt: Sequence[int],
    capacity: int,
    history: History,
    forced: Forced,
) -> Drafter:
    lookup = PromptLookup(prompt, history, forced)
    if draft is None or len(prompt) >= draft.context:
        return lookup
    stream, give_back = draft.new_stream(min(capacity, draft.context))
    return FirstOf([lookup, DraftModel(stream, prompt, vocab_size, give_back)])


def _check_vocabulary(tokenizer: Tokenizer, draft: DraftEngine) -> None:
    pairs = zip(tokenizer.vocabulary.tokens, draft.tokenizer.vocabulary.tokens, strict=False)  # padding may differ
    for token_id, (own, other) in enumerate(pairs):
        if own != other:
            raise InputError(
                f"draft: token {token_id} of {draft.name} is {other!r}, expected {own!r}, that of the model; take a "
                "smaller model with the same vocabulary"
            )


def _identity(backend: Backend, identify: Identify) -> StateIdentity:
    stream = backend.new_stream(1)
    try:
        assert stream.cache is not None, "its backend gives entries"
        return identify(stream.cache)
    finally:
        stream.close()
