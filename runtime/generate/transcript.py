"""A token stream and the tokens in its cache, so that a prompt with the same prefix reuses the cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from sprat.arrays import F32Array
from sprat.errors import BackendError
from sprat.runtime.backends.protocol import TokenStream
from sprat.runtime.cache import Cache
from sprat.runtime.pass_queue import forward_in_turn
from sprat.runtime.prefix.cache import PrefixCache
from sprat.runtime.prefix.entries import Entries

__all__ = ["Transcript"]


class Transcript:
    """A token stream and the tokens in its cache.

    The stream may be ahead: it has processed drafts, tokens that may follow, and the transcript has their logits.

    Args:
        stream: an empty stream; closed with the transcript.
        on_close: called when the stream has been closed.
        prefixes: entries of other streams to reuse, and to add to; ``None`` for none.
    """

    def __init__(
        self,
        stream: TokenStream,
        on_close: Callable[[], object] = lambda: None,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self._stream = stream
        self._on_close = on_close
        self._prefixes = prefixes
        self._tokens: list[int] = []
        self._n_in_chunks = 0  # tokens from the first on that were processed in whole chunks of the prefixes' grain
        self._drafts: Sequence[int] = ()
        self._draft_logits: F32Array | None = None

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens in the cache, without drafts."""
        return self._tokens

    @property
    def n_past(self) -> int:
        """Number of tokens in the cache."""
        return len(self._tokens)

    @property
    def capacity(self) -> int:
        """Number of tokens that the cache can hold."""
        return self._stream.capacity

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``.

        A token that was the next draft costs nothing. Of a pass that ends early, the transcript has the tokens that
        the stream has.
        """
        if self._draft_logits is not None:
            if len(tokens) == 1 and self._drafts and tokens[0] == self._drafts[0]:
                return self._take_draft()
            self._drop_drafts()
        start = len(self._tokens)
        try:
            return forward_in_turn(self._stream, tokens)
        finally:
            self._tokens += tokens[: max(0, self._stream.length - start)]
            self._count_chunk(start)

    def forward_with_drafts(self, token: int, drafts: Sequence[int]) -> F32Array:
        """Append ``token``, and process ``drafts`` after it in the same pass; returns the logits after ``token``."""
        self._drop_drafts()
        logits = forward_in_turn(self._stream, [token, *drafts], all_logits=True)
        self._tokens.append(token)
        self._drafts, self._draft_logits = drafts, logits[1:]
        first: F32Array = logits[0]
        return first

    def is_next_draft(self, token: int) -> bool:
        """Whether the logits after ``token`` are known."""
        return bool(self._drafts) and self._drafts[0] == token

    def rewind(self, prompt: Sequence[int]) -> None:
        """Keep the longest common prefix with ``prompt``, and take what follows of it from other streams.

        The last token of ``prompt`` is always processed again, since its logits are needed.
        """
        self._drop_drafts()
        pairs = zip(self._tokens, prompt[:-1], strict=False)
        n_common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._stream.truncate(n_common)
        del self._tokens[n_common:]
        self._reuse(prompt[:-1])

    def remember(self) -> None:
        """Keep the entries of all tokens for other streams."""
        if self._prefixes is not None and (cache := self._stream.cache) is not None:
            self._prefixes.store(self._reusable(self._prefixes), cache)

    def write_shared(self) -> None:
        """Write to the storage what this and another prompt shared, if there is a folder; behind an answer."""
        if self._prefixes is not None and (cache := self._stream.cache) is not None:
            self._prefixes.write_shared(self._reusable(self._prefixes), cache)

    def _reusable(self, prefixes: PrefixCache) -> Sequence[int]:
        return self._tokens if prefixes.grain == 1 else self._tokens[: self._n_in_chunks]

    @property
    def cache(self) -> Cache:
        """The KV entries of the stream.

        Raises:
            BackendError: the backend does not give them out, or was closed.
        """
        cache = self._stream.cache
        if cache is None:
            raise BackendError(
                "there are no KV entries to save or restore: a library keeps them (the llamacpp backend), or another "
                "process (isolate=True), or the session was closed; load the model again, with another backend and "
                "without isolate"
            )
        return cache

    def saved(self) -> tuple[list[int], Entries]:
        """The tokens and their KV entries, which change with the next pass.

        Raises:
            BackendError: the backend does not give them out, or was closed.
        """
        self._drop_drafts()
        return list(self._tokens), Entries(self.cache.views(0, len(self._tokens)))

    def restore(self, tokens: Sequence[int], entries: Entries) -> None:
        """Replace the tokens and their entries.

        Raises:
            SavedStateError: the file of the entries changed; the transcript is empty.
            BackendError: the backend does not take entries, or was closed.
        """
        cache = self.cache
        self._drop_drafts()
        cache.truncate(0)
        self._tokens, self._n_in_chunks = [], 0
        entries.append_to(cache)
        self._tokens = list(tokens)

    def close(self) -> None:
        """Free the cache."""
        self._drafts, self._draft_logits = (), None
        self._stream.close()
        self._on_close()

    def _take_draft(self) -> F32Array:
        """Make the next draft a token of the transcript; returns the logits after it."""
        assert self._draft_logits is not None, "there are drafts"
        logits: F32Array = self._draft_logits[0]
        self._tokens.append(self._drafts[0])
        self._drafts, self._draft_logits = self._drafts[1:], self._draft_logits[1:]
        return logits

    def _drop_drafts(self) -> None:
        if self._drafts:
            self._stream.truncate(len(self._tokens))
        self._drafts, self._draft_logits = (), None

    def _reuse(self, prompt: Sequence[int]) -> None:
        """Append what other streams know of ``prompt``."""
        if self._prefixes is None or (cache := self._stream.cache) is None:
            return
        n_past, grain = len(self._tokens), self._prefixes.grain
        self._n_in_chunks = min(self._n_in_chunks, n_past) // grain * grain
        if grain > 1 and n_past != self._n_in_chunks:
            return  # what was processed in other chunks has other bits, and so would be what follows it
        self._prefixes.extend(cache, prompt[: cache.capacity])
        self._tokens += prompt[n_past : cache.length]
        self._n_in_chunks = cache.length

    def _count_chunk(self, start: int) -> None:
        grain = self._prefixes.grain if self._prefixes is not None else 1
        if start == self._n_in_chunks and len(self._tokens) - start == grain:
            self._n_in_chunks = len(self._tokens)
