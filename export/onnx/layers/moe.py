"""The MoE sublayer: router, DeepSeek's expert selection, and experts, of which only the chosen ones are computed.

DeepSeek selects experts by one score and weights their outputs by another: V2-Lite's scores are not normalized, and the
correction bias of V3 affects only the selection. ``QMoE`` takes both from onnxruntime 1.31 on. Before, it dequantizes
every expert that it uses (12 times slower, measured), so in graphs for older versions, and in portable ones, each
expert is in an ``If``: those without tokens are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sprat.export.onnx.data import OnnxWeight
from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.layers.layer import Layer
from sprat.export.onnx.layers.mlp import gated, mlp
from sprat.export.onnx.ort_version import FAST_QMOE
from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring

__all__ = ["moe_mlp"]


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """Where tokens go.

    Attributes:
        scores: selection scores ``["n", n_routed_experts]``.
        weights: weight of every expert's output, ``["n", n_routed_experts]``.
        chosen: ids of the chosen experts, ``["n", n_experts_per_token]``.
    """

    scores: Value
    weights: Value
    chosen: Value


def moe_mlp(layer: Layer, moe: MoESpec, x: Value) -> Value:
    """Weighted sum of the chosen experts, plus the shared experts: ``["n", hidden]`` to ``["n", hidden]``."""
    with layer.graph.scope("moe"):
        routes = _route(layer, moe, x)
        gate_up, down = layer.experts()
        form = _qmoe if layer.weights.takes_qmoe(gate_up, down) else _one_if_per_expert
        out = form(layer, moe, x, routes, gate_up, down)
    if not moe.n_shared_experts:
        return out
    return layer.graph.op("Add", out, mlp(layer, x, "_shexp"))


def _route(layer: Layer, moe: MoESpec, x: Value) -> Routes:
    graph = layer.graph
    logits = graph.op("Gemm", x, layer.vector("ffn_gate_inp.weight"), transB=1, name="router")
    scores = graph.op("Softmax" if moe.scoring is Scoring.SOFTMAX else "Sigmoid", logits)
    selection = graph.op("Add", scores, layer.vector("exp_probs_b.bias")) if moe.correction_bias else scores
    if moe.n_groups_per_token < moe.n_groups:
        selection = _limit_to_groups(graph, moe, selection)
    _, chosen = graph.ops("TopK", selection, graph.constant([moe.n_experts_per_token]), n_outputs=2)
    return Routes(selection, _output_weights(graph, moe, scores, chosen), chosen)


def _limit_to_groups(graph: GraphBuilder, moe: MoESpec, selection: Value) -> Value:
    """Selection scores with experts outside the best groups at minus infinity."""
    groups = graph.op("Reshape", selection, graph.constant([0, moe.n_groups, -1]))
    if moe.group_score is GroupScore.MAX:
        scores = graph.op("ReduceMax", groups, graph.constant([2]), keepdims=0)
    else:
        best, _ = graph.ops("TopK", groups, graph.constant([2]), n_outputs=2)
        scores = graph.op("ReduceSum", best, graph.constant([2]), keepdims=0)
    _, kept = graph.ops("TopK", scores, graph.constant([moe.n_groups_per_token]), n_outputs=2)
    outside = graph.op("Expand", graph.constant(-np.inf, np.float32), graph.op("Shape", scores))
    inside = graph.op("Expand", graph.constant(0, np.float32), graph.op("Shape", kept))
    penalty = graph.op("ScatterElements", outside, kept, inside, axis=1)
    limited = graph.op("Add", groups, graph.op("Unsqueeze", penalty, graph.constant([2])))
    return graph.op("Reshape", limited, graph.op("Shape", selection))


def _output_weights(graph: GraphBuilder, moe: MoESpec, scores: Value, chosen: Value) -> Value:
    """The weight of every expert's output."""
    if moe.normalize:
        total = graph.op("ReduceSum", graph.op("GatherElements", scores, chosen, axis=1), graph.constant([1]))
        scores = graph.op("Div", scores, graph.op("Add", total, graph.constant(1e-20, np.float32)))
    return scores if moe.scaling == 1.0 else graph.op("Mul", scores, graph.constant(moe.scaling, np.float32))


def _qmoe(layer: Layer, moe: MoESpec, x: Value, routes: Routes, gate_up: OnnxWeight, down: OnnxWeight) -> Value:
    """All experts in one ``QMoE``."""
    fc1, fc2 = (layer.weights.arrays.rows(weight) for weight in (gate_up, down))
    layer.graph.needs(ort=FAST_QMOE)
    own_bits: dict[str, Any] = {} if down.bits == gate_up.bits else {"fc2_expert_weight_bits": down.bits}
    return layer.graph.op(
        "QMoE",
        *(x, routes.scores, fc1.codes, fc1.scales, None, fc2.codes, fc2.scales, None),
        *(None, None, None, fc1.zeros, fc2.zeros, None, routes.weights),
        domain=CONTRIB,
        k=moe.n_experts_per_token,
        activation_type="swiglu",
        swiglu_fusion=1,
        block_size=gate_up.format.block_size,
        expert_weight_bits=gate_up.bits,
        **own_bits,
        **layer.weights.accuracy,
    )


def _one_if_per_expert(
    layer: Layer, moe: MoESpec, x: Value, routes: Routes, gate_up: OnnxWeight, down: OnnxWeight
) -> Value:
    """One ``If`` per expert, with the outputs for its tokens or none; the outputs are weighted and added at the end.

    An ``If`` around several of them would save evaluations, but onnxruntime packs no weights in an ``If`` inside
    another one. An assignment is a place in the list of all chosen experts: number ``i`` is token
    ``i // n_experts_per_token``.
    """
    graph = layer.graph
    per_token = graph.constant([moe.n_experts_per_token])
    chosen = graph.op("Reshape", routes.chosen, graph.constant([-1]))
    nothing = graph.constant(np.empty((0, layer.spec.hidden_size)), np.float32), graph.constant([])
    parts = []
    for expert, is_used in enumerate(_flags(graph, chosen, moe.n_routed_experts)):
        with graph.scope(f"expert.{expert}"):
            then = graph.branch("used", partial(_expert, layer, gate_up, down, expert, x, chosen, per_token))
            otherwise = graph.branch("idle", lambda: [graph.op("Identity", empty) for empty in nothing])
            parts.append(graph.ops("If", is_used, n_outputs=2, then_branch=then, else_branch=otherwise))
    outputs, assignments = (graph.op("Concat", *column, axis=0) for column in zip(*parts, strict=True))
    weights = graph.op("GatherElements", routes.weights, routes.chosen, axis=1)
    column = graph.op("Reshape", weights, graph.constant([-1, 1]))
    weighted = graph.op("Mul", outputs, graph.op("Gather", column, assignments))
    tokens = graph.op("Unsqueeze", graph.op("Div", assignments, per_token), graph.constant([1]))
    zeros = graph.op("Expand", graph.constant(0, np.float32), graph.op("Shape", x))
    return graph.op("ScatterND", zeros, tokens, weighted, reduction="add")


def _flags(graph: GraphBuilder, found: Value, n: int) -> Sequence[Value]:
    """Whether each of the numbers 0 to ``n - 1`` is in ``found``: ``n`` values of shape ``[1]``."""
    true = graph.op("Expand", graph.constant(True, np.bool_), graph.op("Shape", found))
    flags = graph.op("ScatterElements", graph.constant(np.zeros(n), np.bool_), found, true, axis=0)
    return graph.ops("Split", flags, n_outputs=n, num_outputs=n)


def _expert(
    layer: Layer, gate_up: OnnxWeight, down: OnnxWeight, expert: int, x: Value, chosen: Value, per_token: Value
) -> Sequence[Value]:
    """The outputs of one expert ``["m", hidden]``, not weighted, and its assignments ``["m"]``."""
    graph, weights = layer.graph, layer.weights
    places = graph.op("NonZero", graph.op("Equal", chosen, graph.constant(expert)))
    assignments = graph.op("Reshape", places, graph.constant([-1]))
    rows = graph.op("Gather", x, graph.op("Div", assignments, per_token))
    both = weights.product(rows, gate_up, part=expert)
    pairs = graph.op("Reshape", both, graph.constant([0, -1, 2]))  # the rows of gate and up alternate
    gate, up = graph.ops("Split", pairs, n_outputs=2, axis=2, num_outputs=2)
    inner = graph.op("Reshape", gated(graph, gate, up), graph.constant([0, -1]))
    return weights.product(inner, down, part=expert), assignments
