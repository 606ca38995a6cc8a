"""``Guide``: what decides, token by token, how an answer may go on. Grammars and budgets of reasoning are guides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Guide", "TokenMask", "ids_of", "mask_of"]

TokenMask = npt.NDArray[np.bool_]
"""True for tokens that may come next: ``(vocab_size,)``."""


class Guide(Protocol):
    """Restricts the tokens of one answer, from its first token on."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer ends here, without an end token, since no token may follow."""

    def allowed(self) -> TokenMask | None:
        """The tokens that may come next, end tokens included; ``None`` for all. The caller may change the array."""

    def accept(self, token_id: int) -> int:
        """Take the token that was sampled, or replace it; return the one that was taken."""

    def forced(self) -> list[int]:
        """Tokens that come next, if the model writes the text that is prescribed as the tokenizer does.

        Guesses that one pass checks: the model may cut the same text into other tokens.
        """


def mask_of(ids: Sequence[int], vocab_size: int) -> TokenMask:
    """The mask that allows ``ids`` only."""
    mask = np.zeros(vocab_size, np.bool_)
    mask[list(ids)] = True
    return mask


def ids_of(mask: TokenMask) -> npt.NDArray[np.intp]:
    """The ids that a mask allows, in ascending order."""
    return np.flatnonzero(mask)
