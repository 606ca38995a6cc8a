"""The interface of what guesses tokens, and the choice between several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Drafter", "FirstOf", "Kind"]


class Kind(NamedTuple):
    """Drafts of one kind are about as likely to be right, and cost about the same."""

    source: str  # "lookup", "forced", "model"
    strength: int
    place: str = "text"


class Drafter(Protocol):
    """Guesses how a sequence of tokens goes on."""

    def feed(self, token: int) -> None:
        """Append a token to the sequence."""

    def kind(self) -> Kind | None:
        """Kind of draft available for the next token; ``None`` for none. Almost free."""

    def prepare(self) -> None:
        """Catch up with the sequence, which is no cost of this draft alone."""

    def propose(self, n: int) -> Sequence[int]:
        """At most ``n`` tokens that may follow; of the kind that :meth:`kind` returned last."""

    def close(self) -> None:
        """Free what was allocated."""


class FirstOf:
    """The draft of the first drafter that has one."""

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        self._drafters = drafters
        self._chosen: Drafter | None = None

    def feed(self, token: int) -> None:
        """Append a token to the sequence of each."""
        for drafter in self._drafters:
            drafter.feed(token)

    def kind(self) -> Kind | None:
        """The kind of the first drafter that has a draft."""
        for drafter in self._drafters:
            if (kind := drafter.kind()) is not None:
                self._chosen = drafter
                return kind
        return None

    def prepare(self) -> None:
        """Prepare the drafter that :meth:`kind` chose."""
        if self._chosen is not None:
            self._chosen.prepare()

    def propose(self, n: int) -> Sequence[int]:
        """The tokens of the one that had a kind."""
        return self._chosen.propose(n) if self._chosen is not None else ()

    def close(self) -> None:
        """Close each."""
        for drafter in self._drafters:
            drafter.close()
