"""The few-shot examples of the teacher's prompt, and the filter for its answers.

Without examples the teacher uses words that are too rare for a student of 13 million parameters to learn. With a few
short answers in its prompt it writes in their style.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace

from sprat.demo.tasks import Problem

__all__ = ["FEW_SHOT", "clean", "in_common_words"]

FEW_SHOT = (
    (
        "Tell me about a fork.",
        "A fork is a tool for eating. It has a handle and four points. We use it to pick up food. After "
        "dinner we wash it and put it back in the drawer.",
    ),
    (
        "Write a very short story about a puppy.",
        "Mia had a small brown puppy. One day the puppy ran out of the gate. Mia looked for it all morning. "
        "At noon it came home, tired and happy, and Mia gave it some water.",
    ),
    (
        "Why is sleep important?",
        "Sleep gives the body time to rest. When we sleep well, we are strong and think clearly in the "
        "morning. Children need more sleep than adults.",
    ),
    (
        "What does a tailor do all day?",
        "A tailor makes and mends clothes. In the morning he measures people and cuts cloth. In the afternoon "
        "he sews. He is glad when a coat fits well.",
    ),
    (
        "Describe a train platform in simple words.",
        "A train platform is a long, flat place next to the tracks. People stand there with their bags and "
        "wait. When the train comes, the doors open and they get in.",
    ),
    (
        "Give me some advice about peeling an onion.",
        "Use a small knife and cut off both ends. Then pull away the dry skin with your fingers. Keep the "
        "onion cold, so that it does not sting your eyes.",
    ),
)
"""Few-shot examples: questions on topics that `sprat.demo.tasks.prose` does not have, with answers in plain style."""

MIN_WORDS, MAX_SENTENCES, MAX_SENTENCE_WORDS = 12, 6, 24
COMMON = 3
"""A word must occur in at least this many answers, or the student could not learn it."""

_SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)
_PLAIN = re.compile(r"[A-Z][A-Za-z ,.;:!?'()%\"-]+")
"""No digits: the teacher uses them for lists, and the student learns numbers from arithmetic."""
_WORD = re.compile(r"[a-z']+")
_MODEL_TALK = re.compile(
    r"\bAI\b|[Ll]anguage model|\bAs an\b|I'm sorry|I cannot|[Hh]ere('s| is| are)\b|^Sure\b|\b[Pp]aragraph|\bsentences"
)
_SPELLING = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "é": "e", "è": "e", "*": ""})


def clean(answer: str) -> str | None:
    """The complete, short sentences of `answer` as one paragraph, or None if they are too few or not plain text.

    >>> clean('A lamp gives light in the evening. It stands on a table or hangs on a wall. It is')
    'A lamp gives light in the evening. It stands on a table or hangs on a wall.'
    """
    paragraph = " ".join(answer.translate(_SPELLING).split())
    sentences = _before_repetition([found.strip() for found in _SENTENCE.findall(paragraph)][:MAX_SENTENCES])
    text = " ".join(sentences)
    short = all(len(sentence.split()) <= MAX_SENTENCE_WORDS for sentence in sentences)
    plain = _PLAIN.fullmatch(text) and not _MODEL_TALK.search(text)
    return text if short and plain and len(text.split()) >= MIN_WORDS else None


def _before_repetition(sentences: list[str]) -> list[str]:
    """The sentences before the first one that repeats a sequence of three words: there the teacher begins to loop."""
    seen: set[tuple[str, ...]] = set()
    for n, sentence in enumerate(sentences):
        words = _words(sentence)
        threes = list(zip(words, words[1:], words[2:], strict=False))
        if len(set(threes)) < len(threes) or seen & set(threes):
            return sentences[:n]
        seen |= set(threes)
    return sentences


def in_common_words(texts: list[Problem]) -> list[Problem]:
    """`texts`, each cut before its first sentence with a word that fewer than `COMMON` of them use."""
    answers_with = Counter(word for text in texts for word in set(_words(text.answer)))
    kept = []
    for text in texts:
        sentences = _SENTENCE.findall(text.answer)
        common = itertools.takewhile(lambda one: all(answers_with[word] >= COMMON for word in _words(one)), sentences)
        answer = "".join(common).strip()
        if len(answer.split()) >= MIN_WORDS:
            kept.append(replace(text, answer=answer))
    return kept


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
