"""Problems, and the split into training and held-out ones.

Generators sample problems without end. A hash of a problem's content decides whether it is held out, so there is no
list of held-out problems, and generators with different seeds agree.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass

__all__ = ["HELD_OUT_SHARE", "Problem", "Split", "split_of"]

HELD_OUT_SHARE = 0.1
"""Share of all instances that are never trained on."""


class Split(enum.Enum):
    """Problems for training, and two kinds of problems for evaluation."""

    TRAIN = "train"
    HELD_OUT = "held_out"
    """Templates of the training set with content that is never trained on."""
    UNSEEN = "unseen"
    """Templates that are never trained on: harder, and reported separately."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One user message and the expected reply.

    Attributes:
        prompt: the user's message.
        answer: the text after the think block.
        kind: of problem; scores are listed by it.
        reasoning: the text inside ``<think>…</think>``; if empty, the block is closed at once.
    """

    prompt: str
    answer: str
    kind: str
    reasoning: str = ""


def split_of(instance: str) -> Split:
    """TRAIN or HELD_OUT, by a stable hash of the text that identifies an instance.

    >>> split_of("add 3 4") is split_of("add 3 4")
    True
    """
    digest = hashlib.blake2b(instance.encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "little") / 2**64
    return Split.HELD_OUT if position < HELD_OUT_SHARE else Split.TRAIN
