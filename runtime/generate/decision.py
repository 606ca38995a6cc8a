"""``decide``: the probabilities of given answers, exactly, without sampling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set

import msgspec
import numpy as np

from sprat.arrays import F32Array, F64Array
from sprat.errors import BackendError
from sprat.runtime.generate.transcript import Transcript

__all__ = ["Decision", "decide"]


class Decision(dict[str, float]):
    """Option -> probability, the most probable first; they add up to 1.

    Attributes:
        logprobs: option -> natural log probability in the model's own distribution.
        mass: how probable the model finds any of the options: near 0, it would rather have said something else.
    """

    def __init__(self, logprobs: Mapping[str, float], temperature: float) -> None:
        values = np.array(list(logprobs.values()), np.float64)
        scores = np.exp((values - values.max()) / temperature)
        shares = dict(zip(logprobs, (scores / scores.sum()).tolist(), strict=True))
        super().__init__(sorted(shares.items(), key=lambda item: -item[1]))
        self.logprobs = dict(logprobs)
        self.mass = float(np.exp(values).sum())

    @property
    def best(self) -> str:
        """The most probable option."""
        return next(iter(self))


class _Node(msgspec.Struct):
    """A token sequence that several options may begin with: what may follow, and the options that end here."""

    children: defaultdict[int, _Node] = msgspec.field(default_factory=lambda: defaultdict(_Node))
    options: list[str] = msgspec.field(default_factory=list)


def decide(
    transcript: Transcript,
    prompt: Sequence[int],
    options: Mapping[str, Sequence[int]],
    *,
    ends: Set[int],
    batch: int,
    temperature: float = 1.0,
) -> Decision:
    """Score ``options`` as continuations of ``prompt``.

    The prompt is processed once; a token that several options share, too. Where an option is the beginning of another
    one, all are scored with the end of the answer: the sum over the end tokens.

    Args:
        transcript: a stream with room for the prompt and the longest option.
        prompt: token ids.
        options: name -> token ids, none of them empty.
        ends: the model's end tokens.
        batch: prompt tokens of one forward pass.
        temperature: divides the log probabilities before they are normalized: above 1 the decision is less certain.

    Raises:
        BackendError: the logits are NaN or infinite.
    """
    root = _Node()
    for name, tokens in options.items():
        node = root
        for token in tokens:
            node = node.children[token]
        node.options.append(name)
    counts_end = any(node.options and node.children for node in _nodes(root))
    transcript.rewind(prompt)
    while transcript.n_past < len(prompt):
        logits = transcript.forward(prompt[transcript.n_past : transcript.n_past + batch])
    transcript.remember()
    scorer = _Scorer(transcript, [*prompt], sorted(ends) if counts_end else [])
    found = dict(scorer.score(root, _log_softmax(logits), 0.0))
    transcript.write_shared()
    return Decision({name: found[name] for name in options}, temperature)


class _Scorer(msgspec.Struct):
    """Walks the tree of options, and rewinds the cache at each branch."""

    transcript: Transcript
    tokens: list[int]  # from the beginning of the prompt to the node
    ends: list[int]  # empty where the end does not count

    def score(self, node: _Node, logprobs: F64Array, total: float) -> Iterator[tuple[str, float]]:
        """Each option below ``node``, and the log probability of its tokens.

        Args:
            node: where the walk is.
            logprobs: of the next token, ``(vocab_size,)``.
            total: log probability of the tokens up to the node.
        """
        end = float(np.logaddexp.reduce(logprobs[self.ends])) if self.ends else 0.0
        for name in node.options:
            yield name, total + end
        for token, child in node.children.items():
            self.tokens.append(token)
            after = total + float(logprobs[token])
            if child.children or self.ends:
                yield from self.score(child, self._forward(), after)
            else:
                yield from ((name, after) for name in child.options)
            self.tokens.pop()

    def _forward(self) -> F64Array:
        self.transcript.rewind(self.tokens)
        return _log_softmax(self.transcript.forward(self.tokens[self.transcript.n_past :]))


def _nodes(node: _Node) -> Iterator[_Node]:
    yield node
    for child in node.children.values():
        yield from _nodes(child)


def _log_softmax(logits: F32Array) -> F64Array:
    values = logits.astype(np.float64)
    top = values.max()
    if not np.isfinite(top):
        raise BackendError(
            f"the largest logit is {top}, expected a finite value: the model's weights are damaged; "
            "find the tensor with `sprat inspect --check`"
        )
    shifted = values - top
    logprobs: F64Array = shifted - np.log(np.exp(shifted).sum())
    return logprobs
