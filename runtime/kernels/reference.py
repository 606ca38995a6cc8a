"""The kernel contract in NumPy: the definition of every result, simple enough to check by reading.

Dequantized matrices are kept up to ``dense_bytes`` and multiplied by BLAS. Others are dequantized again for every call,
a panel at a time; of an MoE sublayer only the selected experts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array, I32Array
from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.cache import KeysAndValues, KVEntries, to_float32
from sprat.runtime.interrupt import check_interrupt
from sprat.runtime.kernels.contract import Routes
from sprat.runtime.kernels.dense import DenseCache
from sprat.runtime.kernels.layers import MLP
from sprat.runtime.kernels.steps import StepByStep
from sprat.runtime.weights import Weight

__all__ = ["PANEL_BYTES", "ReferenceKernels"]

PANEL_BYTES = 32 << 20  # limit on a temporary array: scores of a block of queries, dequantized rows


class ReferenceKernels(StepByStep):
    """:class:`~sprat.runtime.kernels.contract.Kernels` in NumPy, in float32; sublayers run step by step.

    Args:
        dense_bytes: limit on dequantized weights kept in memory.
    """

    in_numpy = True

    def __init__(self, dense_bytes: int = 1 << 30) -> None:
        self._dense = DenseCache(dense_bytes)

    def embed(self, table: Weight, tokens: I32Array) -> F32Array:
        """Dequantize the rows ``tokens``."""
        return table.format.dequantize(table.packed[tokens])

    def rms_norm(self, x: F32Array, gain: F32Array, eps: float) -> F32Array:
        """``x / sqrt(mean(x ** 2) + eps) * gain``; NaN where the mean overflows, instead of zeros."""
        mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
        mean_square[np.isinf(mean_square)] = np.nan
        return np.asarray(x / np.sqrt(mean_square + np.float32(eps)) * gain)

    def linear(self, x: F32Array, weight: Weight, bias: F32Array | None = None) -> F32Array:
        """``x @ weight.T + bias``."""
        out = self._product(x, weight)
        return out if bias is None else out + bias

    def rope(self, x: F32Array, angles: RopeAngles) -> None:
        """Rotate each pair ``(a, b)`` to ``(a cos - b sin, b cos + a sin)``."""
        half = x.shape[-1] // 2
        a, b = (x[..., 0::2], x[..., 1::2]) if angles.interleaved else (x[..., :half], x[..., half:])
        cos, sin = angles.cos[:, None], angles.sin[:, None]
        a[...], b[...] = a * cos - b * sin, b * cos + a * sin

    def swiglu(self, x: F32Array, mlp: MLP) -> F32Array:
        """``down(silu(gate(x)) * up(x))``."""
        return self._mlp(x, mlp, None)

    def route(self, logits: F32Array, moe: MoESpec, bias: F32Array | None = None) -> Routes:
        """Score experts, limit to the best groups, select the top k, compute their weights.

        An expert whose logit or bias is NaN or Inf is selected, with the weight NaN.
        """
        scores = _softmax(logits) if moe.scoring is Scoring.SOFTMAX else _sigmoid(logits)
        scores[~np.isfinite(logits)] = np.nan
        if bias is not None:
            scores[:, ~np.isfinite(bias)] = np.nan
        selection_scores = scores if bias is None else scores + bias
        if moe.n_groups_per_token < moe.n_groups:
            selection_scores = _limit_to_groups(selection_scores, moe)
        experts = _best(selection_scores, moe.n_experts_per_token)
        weights = np.take_along_axis(scores, experts, axis=-1)
        if moe.normalize:
            weights = weights / (weights.sum(axis=-1, keepdims=True) + np.float32(1e-20))
        return Routes(experts.astype(np.int32), weights * np.float32(moe.scaling))

    def experts(self, x: F32Array, routes: Routes, routed: MLP, shared: MLP | None = None) -> F32Array:
        """One expert at a time, with all tokens that are routed to it."""
        out = self.swiglu(x, shared) if shared else np.zeros_like(x)
        for expert in np.flatnonzero(np.bincount(routes.experts.ravel())):  # np.unique imports np.ma
            tokens, places = np.nonzero(routes.experts == expert)
            out[tokens] += self._mlp(x[tokens], routed, int(expert)) * routes.weights[tokens, places, None]
        return out

    def expert(self, x: F32Array, weight: Weight, index: int) -> F32Array:
        """``x @ weight[index].T``: one expert's matrix of a stack."""
        return self._product(x, weight, index)

    def kept(self, weight: Weight, index: int | None = None) -> F32Array | None:
        """The dequantized copy of ``weight``, or of one part of a stack, if it was kept."""
        return self._dense.kept(weight, index)

    def gqa_attention(self, q: F32Array, entries: KeysAndValues, scale: float) -> F32Array:
        """Query heads grouped by KV head."""
        n, n_heads, dim = q.shape
        keys, values = to_float32(entries.keys), to_float32(entries.values)
        grouped = q.swapaxes(0, 1).reshape(len(keys), -1, n, dim)
        return _heads_last(_attend(grouped, keys, values, scale), n_heads)

    def mla_expanded(self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float) -> F32Array:
        """Keys ``[latent @ k_b, rope]`` and values ``latent @ v_b.T`` per head."""
        n_heads, rank, _ = k_b.shape
        latent, rope = np.split(to_float32(entries), [rank], axis=-1)
        shared_rope = np.broadcast_to(rope, (n_heads, *rope.shape))
        keys = np.concatenate([latent @ self._dequantized(k_b), shared_rope], axis=-1)
        values = latent @ self._dequantized(v_b).swapaxes(1, 2)
        return _heads_last(_attend(q.swapaxes(0, 1)[:, None], keys, values, scale), n_heads)

    def mla_absorbed(self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float) -> F32Array:
        """Queries ``[q_nope @ k_b.T, q_rope]`` over the KV entries: one KV head, whose values are the latents."""
        n_heads, rank, nope = k_b.shape
        q_nope, q_rope = np.split(q.swapaxes(0, 1), [nope], axis=-1)
        absorbed = np.concatenate([q_nope @ self._dequantized(k_b).swapaxes(1, 2), q_rope], axis=-1)
        keys = to_float32(entries)[None]
        latents = _attend(absorbed[None], keys, keys[..., :rank], scale)[0]
        return _heads_last(latents @ self._dequantized(v_b).swapaxes(1, 2), n_heads)

    def _mlp(self, x: F32Array, mlp: MLP, expert: int | None) -> F32Array:
        gate = self._product(x, mlp.gate, expert)
        return self._product(gate * _sigmoid(gate) * self._product(x, mlp.up, expert), mlp.down, expert)

    def _product(self, x: F32Array, weight: Weight, expert: int | None = None) -> F32Array:
        check_interrupt()
        dense = self._dense.find(weight, expert)
        if dense is not None:
            return x @ dense.T
        part = weight if expert is None else weight[expert]
        n_rows = max(1, PANEL_BYTES // (4 * part.shape[-1]))
        panels = (part.packed[start : start + n_rows] for start in range(0, part.shape[0], n_rows))
        return np.concatenate([x @ part.format.dequantize(panel).T for panel in panels], axis=-1)

    def _dequantized(self, weight: Weight) -> F32Array:
        dense = self._dense.find(weight)
        return weight.dequantize() if dense is None else dense


def _attend(q: F32Array, keys: F32Array, values: F32Array, scale: float) -> F32Array:
    """Causal attention, to which all kinds of attention are reduced.

    Args:
        q: ``(kv_heads, group, n, dim)``.
        keys: ``(kv_heads, t, dim)``; the last ``n`` are the queries' own.
        values: ``(kv_heads, t, value_dim)``.
        scale: factor on the scores.

    Returns:
        ``(kv_heads, group, n, value_dim)``.
    """
    kv_heads, group, n, dim = q.shape
    n_entries = keys.shape[1]
    out = np.empty((kv_heads, group, n, values.shape[-1]), np.float32)
    panel = max(1, PANEL_BYTES // (4 * kv_heads * group * n_entries))
    for start in range(0, n, panel):
        stop = min(start + panel, n)
        n_seen = n_entries - n + stop  # entries that the last query of this panel attends to
        queries: F32Array = q[:, :, start:stop].reshape(kv_heads, -1, dim) * np.float32(scale)
        scores = (queries @ keys[:, :n_seen].swapaxes(1, 2)).reshape(kv_heads, group, -1, n_seen)
        if scores.min() == -np.inf:  # of damaged weights, or overflow; a softmax would hide it
            scores[scores == -np.inf] = np.nan
        if stop - start > 1:
            scores[..., start - stop :] += np.triu(np.full((stop - start, stop - start), -np.inf, np.float32), 1)
        sums = _softmax(scores).reshape(kv_heads, -1, n_seen) @ values[:, :n_seen]
        out[:, :, start:stop] = sums.reshape(kv_heads, group, stop - start, -1)
    return out


def _heads_last(x: F32Array, n_heads: int) -> F32Array:
    """``(..., n, dim)`` with leading axes of ``n_heads`` in all, to ``(n, n_heads, dim)``."""
    return np.ascontiguousarray(x.reshape(n_heads, *x.shape[-2:]).swapaxes(0, 1))


def _softmax(x: F32Array) -> F32Array:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _sigmoid(x: F32Array) -> F32Array:
    with np.errstate(over="ignore"):  # exp(-x) of a very negative x is Inf, and 1 / Inf is 0, as it should be
        return np.asarray(1 / (1 + np.exp(-x)))


def _best(scores: F32Array, n: int) -> npt.NDArray[np.intp]:
    """Indices of the ``n`` largest scores in each row, best first; the lower index of equal ones. NaN comes first."""
    return np.argsort(np.where(np.isnan(scores), -np.inf, -scores), axis=-1, kind="stable")[:, :n]


def _limit_to_groups(selection_scores: F32Array, moe: MoESpec) -> F32Array:
    """Scores, with -Inf for every expert outside the best groups."""
    groups = selection_scores.reshape(len(selection_scores), moe.n_groups, -1)
    if moe.group_score is GroupScore.MAX:
        group_scores = groups.max(axis=-1)
    else:
        group_scores = np.sort(groups, axis=-1)[..., -2:].sum(axis=-1)
    limited = np.full_like(groups, -np.inf)
    kept = _best(group_scores, moe.n_groups_per_token)[..., None]
    np.put_along_axis(limited, kept, np.take_along_axis(groups, kept, axis=1), axis=1)
    return limited.reshape(selection_scores.shape)
