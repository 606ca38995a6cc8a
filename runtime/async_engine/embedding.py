"""``Embeddings``: the vectors of several texts, one after the other, as a worker's thread computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sprat.arrays import F32Array
from sprat.runtime.engine import Engine
from sprat.runtime.interrupt import Interrupt

__all__ = ["Embeddings"]


class Embeddings(Iterator[F32Array]):
    """The vector of each text, ``(hidden_size,)``; fewer once it was cancelled.

    Args:
        engine: computes them.
        texts: texts, or the token ids of each.
        normalize: to length 1.
    """

    def __init__(self, engine: Engine, texts: Sequence[str | Sequence[int]], *, normalize: bool) -> None:
        self._engine, self._texts, self._normalize = engine, iter(texts), normalize
        self._interrupt = Interrupt()

    def __next__(self) -> F32Array:
        text = next(self._texts)
        with self._interrupt:
            (vector,) = self._engine.embed([text], normalize=self._normalize)
            return vector  # type: ignore[no-any-return]  # a row of an array
        raise StopIteration

    def cancel(self) -> None:
        """End in the middle of a pass; may be called from any thread."""
        self._interrupt.cancel()
