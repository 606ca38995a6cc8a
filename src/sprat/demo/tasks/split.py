"""What a problem is, and which problems are kept away from training.

Generators draw problems at random and for ever; whether one may be trained on is decided by a hash of what it says, so
no list of held-out problems has to exist, and any two generators with any seeds agree about it.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass

__all__ = ["HELD_OUT_SHARE", "Problem", "Split", "split_of"]

HELD_OUT_SHARE = 0.1
"""Share of all instances that training never sees."""


class Split(enum.Enum):
    """Which problems: those to learn from, or one of two kinds of those to be judged by."""

    TRAIN = "train"
    HELD_OUT = "held_out"
    """Known templates, filled in a way that training never saw."""
    UNSEEN = "unseen"
    """Templates that training never saw at all: harder, and reported beside the other."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One exchange: the user's message, and all that the assistant should say.

    `reasoning` goes inside ``<think>…</think>`` (empty: the block is closed at once), `answer` after it. `kind` names
    the generator's branch, so that scores can be told apart.
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
