"""Muon: momentum whose matrices are made orthogonal before they are applied (Keller Jordan, 2024).

A step moves all directions of a matrix alike, which trains this student several times faster than Adam. Stacks of
experts are handled as a batch of matrices.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Muon"]

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic Newton-Schulz iteration, which converges fast to singular values near 1."""


class Muon(torch.optim.Optimizer):
    """For matrices (out, in) and stacks of them (experts, out, in); AdamW optimizes all other parameters."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                buffer = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(buffer, group["momentum"])
                # A tall matrix has more rows than singular values; this keeps the size of the update.
                scale = max(1.0, parameter.shape[-2] / parameter.shape[-1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(orthogonalize(direction).float(), alpha=-group["lr"] * scale)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """An approximation of the nearest semi-orthogonal matrix to each of (…, m, n), in bfloat16."""
    a, b, c = _NEWTON_SCHULZ
    stack = matrix.bfloat16().reshape(-1, *matrix.shape[-2:])
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT.contiguous() if tall else stack
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).reshape(matrix.shape)
