"""Costs of formats without a measurement: typical shares of a model's divergence by the role of a tensor.

``--quality fast`` reads no text. What a role costs comes from measured models of the same kind of attention and MLP
(``benchmarks/quality.py --costs`` prints the table), what a format costs from the error that it leaves in normally
distributed weights.
"""

from __future__ import annotations

import functools

import numpy as np

from sprat.quant.formats import BlockFormat
from sprat.runtime.arch.tensors import tensor_role

__all__ = ["packaged_cost", "relative_error"]

_SAMPLE = 64 * 256
_ROLE_COST = {  # divergence of one tensor in Q4_0, as a share of the largest role's
    "token_embd": 1.0,
    "output": 1.0,
}
_OTHER = 0.01


def packaged_cost(name: str, format: BlockFormat) -> float:
    """The relative divergence to expect of the tensor ``name`` in ``format``."""
    return _ROLE_COST.get(tensor_role(name), _OTHER) * relative_error(format)


@functools.cache
def relative_error(format: BlockFormat) -> float:
    """Mean squared error of normally distributed weights, relative to their mean square."""
    weights = np.random.default_rng(1).standard_normal((64, _SAMPLE // 64), np.float32)
    difference = format.dequantize(format.quantize(weights)) - weights
    return float(np.mean(np.square(difference), dtype=np.float64))
