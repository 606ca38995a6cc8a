"""Grouped GEMM for MoE: tokens sorted by expert, one matrix product per expert over all its tokens.

The rows of each expert are padded to a multiple of 128: oneDNN builds a kernel for every new matrix shape, and without
padding nearly every step has new shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Groups", "grouped_linear", "plan_groups"]

ROUND_TO = 128


@dataclass(frozen=True, slots=True)
class Groups:
    """The permutation that sorts (token, expert) pairs by expert."""

    counts: Tensor
    """(experts,): tokens per expert."""
    ends: Tensor
    """(experts,) int32: one past each expert's last row, padding included."""
    row_of: Tensor
    """(tokens * k,): the row of each pair."""
    pair_of: Tensor
    """(rows,): the pair in each row; tokens * k for padding."""

    def gather(self, tokens: Tensor) -> Tensor:
        """(tokens, hidden) -> (rows, hidden) in bfloat16, padding zero."""
        gathered: Tensor = _Gather.apply(tokens, self)
        return gathered

    def combine(self, rows: Tensor, weights: Tensor) -> Tensor:
        """(rows, hidden), weights (tokens, k) -> (tokens, hidden) float32: each token's weighted sum."""
        combined: Tensor = _Combine.apply(rows, weights, self)
        return combined


def plan_groups(experts: Tensor, n_experts: int) -> Groups:
    """Sort the pairs of `experts` (tokens, k) by expert. The number of rows depends only on its shape."""
    flat = experts.flatten()
    counts = torch.bincount(flat, minlength=n_experts)
    padded = (counts + ROUND_TO - 1) // ROUND_TO * ROUND_TO
    ends = padded.cumsum(0)
    order = flat.argsort(stable=True)
    by_expert = flat[order]
    shift = (ends - padded) - (counts.cumsum(0) - counts)
    rows = torch.arange(len(flat)) + shift[by_expert]
    n_rows = len(flat) + n_experts * ROUND_TO
    pair_of = torch.full((n_rows,), len(flat)).scatter(0, rows, order)
    row_of = torch.empty_like(flat).scatter(0, order, rows)
    return Groups(counts, ends.int(), row_of, pair_of)


def grouped_linear(rows: Tensor, weights: Tensor, groups: Groups) -> Tensor:
    """(rows, in) -> (rows, out), each group with its own matrix of `weights` (experts, out, in), in bfloat16."""
    product: Tensor = torch._grouped_mm(rows, weights.bfloat16().mT, offs=groups.ends)  # noqa: SLF001 - no public name yet
    return product


class _Gather(torch.autograd.Function):
    """Copies token rows; its gradient is a sum of rows, where the gradient of indexing scatters with atomics."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, groups: Groups) -> Tensor:
        ctx.groups, ctx.n_tokens, ctx.dtype = groups, len(tokens), tokens.dtype
        k = len(groups.row_of) // len(tokens)
        with_zero = torch.cat((tokens.bfloat16(), tokens.new_zeros(1, tokens.shape[1], dtype=torch.bfloat16)))
        return with_zero[groups.pair_of // k]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad[ctx.groups.row_of].view(ctx.n_tokens, -1, grad.shape[1]).sum(1, dtype=torch.float32).to(
            ctx.dtype
        ), None


class _Combine(torch.autograd.Function):
    """The weighted sum of each token's rows; its gradient copies the token's gradient to them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, groups: Groups) -> Tensor:
        own = rows[groups.row_of].view(*weights.shape, -1)
        ctx.groups, ctx.n_rows = groups, len(rows)
        ctx.save_for_backward(own, weights)
        return torch.einsum("tkh,tk->th", own.float(), weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        own, weights = ctx.saved_tensors
        to_rows = (grad[:, None] * weights[..., None]).flatten(0, 1).bfloat16()
        with_zero = torch.cat((to_rows, to_rows.new_zeros(1, to_rows.shape[1])))
        return with_zero[ctx.groups.pair_of], torch.einsum("tkh,th->tk", own.float(), grad), None
