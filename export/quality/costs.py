"""Costs of formats without a measurement: typical divergences by the role of a tensor.

``--quality fast`` probes nothing. What a role costs was measured on one model with each kind of attention
(SmolLM2-135M and the packaged student) by probes of the packaged calibration text alone, as
``benchmarks/role_costs.py`` makes them; of SmolLM2's the beginnings of twelve documents. What a format costs is
the error that it leaves in normally distributed weights, coarse ones to the power that the student's roles showed.
"""

from __future__ import annotations

import functools

import numpy as np

from sprat.quant.formats import BlockFormat, get_format
from sprat.runtime.arch.attention import LatentAttentionSpec
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import tensor_role

__all__ = ["packaged_cost", "relative_error"]

_SAMPLE_ROWS, _SAMPLE_COLUMNS = 64, 256

# Divergence of all tensors of a role in Q4_0, in units of the model's other roles
_GROUPED = {
    "token_embd": 0.02,
    "output": 0.06,
    "attn_q": 0.015,
    "attn_k": 0.015,
    "attn_v": 0.137,
    "attn_output": 0.039,
    "ffn_gate": 0.094,
    "ffn_up": 0.134,
    "ffn_down": 0.157,
}
_LATENT = {
    "token_embd": 1.76,
    "output": 0.83,
    "attn_q": 0.033,
    "attn_q_a": 0.033,
    "attn_q_b": 0.033,
    "attn_kv_a_mqa": 0.175,
    "attn_k_b": 0.0013,
    "attn_v_b": 0.048,
    "attn_output": 0.186,
    "ffn_gate": 0.011,
    "ffn_up": 0.0099,
    "ffn_down": 0.040,
}
_EXPERTS = {
    "ffn_gate_exps": 0.0101,
    "ffn_up_exps": 0.0074,
    "ffn_down_exps": 0.067,
    "ffn_gate_shexp": 0.0051,
    "ffn_up_shexp": 0.0049,
    "ffn_down_shexp": 0.012,
}
_TIED = 0.2  # embeddings that are the head, too; SmolLM2 gives them 5 bits, as measured costs do
_OTHER = 0.03
_STEEPNESS = 1.15  # exponent of the errors of formats coarser than Q4_0
_STEEPNESS_OF = {  # coarse experts flip routes
    "ffn_gate_exps": 1.77,
    "ffn_up_exps": 1.63,
    "ffn_gate_shexp": 1.45,
    "ffn_up_shexp": 1.42,
    "ffn_down_shexp": 1.28,
    "ffn_down_exps": 1.28,  # as the shared ones: no second format divides the student's rows
    "ffn_gate": 1.57,
    "ffn_up": 1.56,
    "ffn_down": 1.31,
}
_ONCE = frozenset({"token_embd", "output"})


def packaged_cost(spec: ModelSpec, name: str, format: BlockFormat) -> float:
    """The divergence to expect of the tensor ``name`` in ``format``, in a unit of its own."""
    role = tensor_role(name)
    table = _LATENT if isinstance(spec.attention, LatentAttentionSpec) else _GROUPED
    of_role = (table | _EXPERTS).get(role, _OTHER)
    if role == "token_embd" and spec.tied_embeddings:
        of_role = max(_TIED, table["output"])
    base = relative_error(get_format("Q4_0"))
    relative = relative_error(format) / base
    steep: float = relative ** _STEEPNESS_OF.get(role, _STEEPNESS)
    return of_role * base * max(relative, steep) / (1 if role in _ONCE else spec.n_layers)


@functools.cache
def relative_error(format: BlockFormat) -> float:
    """Mean squared error of normally distributed weights after a scale search, relative to their mean square."""
    weights = np.random.default_rng(1).standard_normal((_SAMPLE_ROWS, _SAMPLE_COLUMNS), np.float32)
    packed = format.quantize(weights, np.ones(_SAMPLE_COLUMNS, np.float32))
    difference = format.dequantize(packed) - weights
    return float(np.mean(np.square(difference), dtype=np.float64))
