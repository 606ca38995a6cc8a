"""The smallest file within a divergence."""

from __future__ import annotations

from collections.abc import Callable

from sprat.errors import InputError
from sprat.export.quality.budget import Allocation, Cost, Tensors, allocate_bytes, formats_bytes, outermost
from sprat.export.quality.candidates import Compared

__all__ = ["smallest_expected", "smallest_measured"]

_ROUNDS = 4
_MARGIN = 0.97  # of the limit, to aim at
_CLOSE = 1e-3  # of the bytes
_TINY = 1e-30


def smallest_expected(tensors: Tensors, cost: Cost, limit: float) -> Allocation:
    """The smallest file whose expected divergence is within ``limit``, for models whose files are not compared.

    Raises:
        InputError: no file has so little.
    """
    found = _smallest(tensors, cost, limit)
    if found.cost > limit:
        raise InputError(
            f"--max-kld {limit:g}: of the largest file {found.cost:.3g} is expected; allow a larger divergence"
        )
    return found


def smallest_measured(
    tensors: Tensors, cost: Cost, limit: float, compared: Callable[[Allocation], Compared]
) -> tuple[Allocation, Compared]:
    """The smallest file whose divergence is within ``limit``: by expected costs, corrected by what was measured.

    Args:
        tensors: shapes and choices.
        cost: the expected divergence of a tensor in a format.
        limit: mean KL divergence in nats.
        compared: rounds and measures the file of an allocation.

    Raises:
        InputError: no file that was tried has so little.
    """
    wanted, best, klds = limit, None, dict[int, float]()
    for _ in range(_ROUNDS):
        allocation = _smallest(tensors, cost, wanted)
        nbytes = formats_bytes(tensors, allocation.formats)
        if nbytes in klds:
            break
        found = compared(allocation)
        kld = klds[nbytes] = found.score.mean
        if kld <= limit and (best is None or nbytes < formats_bytes(tensors, best[0].formats)):
            best = allocation, found
        if limit * (2 * _MARGIN - 1) < kld <= limit:
            break
        wanted = allocation.cost * limit * _MARGIN / max(kld, _TINY)
    if best is None:
        files = "the largest file" if len(klds) == 1 else f"the best of {len(klds)} files"
        raise InputError(f"--max-kld {limit:g}: {files} has {min(klds.values()):.3g}; allow a larger divergence")
    return best


def _smallest(tensors: Tensors, cost: Cost, wanted: float) -> Allocation:
    """The smallest allocation with an expected cost of at most ``wanted``, by bisection; else that of least cost."""
    low, high = (formats_bytes(tensors, outermost(tensors, end)) for end in (min, max))
    found = allocate_bytes(tensors, cost, high)
    if found.cost > wanted:
        return found
    if (least := allocate_bytes(tensors, cost, low)).cost <= wanted:
        return least
    while high - low > _CLOSE * high:
        middle = (low + high) // 2
        tried = allocate_bytes(tensors, cost, middle)
        if tried.cost <= wanted:
            high, found = middle, tried
        else:
            low = middle
    return found
