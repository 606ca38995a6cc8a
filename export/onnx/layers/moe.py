"""The MoE sublayer: router, DeepSeek's expert selection, and experts, of which only the chosen ones are computed.

DeepSeek selects experts by one score and weights their outputs by another: V2-Lite's scores are not normalized, and the
correction bias of V3 affects only the selection. ``QMoE`` takes both from onnxruntime 1.31 on. Before, it dequantizes
every expert that it uses (12 times slower, measured). So graphs for older versions, and portable ones, sort the tokens
by expert, and an ``If`` computes a group of experts where one of them has tokens. Each node costs some microseconds,
since the weights that stream through the caches push out what it needs: groups of eight, and one activation for a
group, were the fastest form (docs/onnx.md). In portable graphs an expert without rows would still be dequantized: there
a group is one expert.
"""

from __future__ import annotations

import math
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

_GROUP = 8  # experts in one If; trees of If were slower


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """Routing of tokens to experts.

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
        form = _qmoe if layer.weights.takes_qmoe(layer.number) else _grouped
        out = form(layer, moe, x, routes)
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


def _qmoe(layer: Layer, moe: MoESpec, x: Value, routes: Routes) -> Value:
    """All experts in one ``QMoE``."""
    gate_up, down = layer.weights.qmoe_experts(layer.number)
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


def _grouped(layer: Layer, moe: MoESpec, x: Value, routes: Routes) -> Value:
    """Rows sorted by expert, an ``If`` for each group of experts, and the weighted sum of each token's outputs.

    An assignment is a place in the list of all chosen experts: number ``i`` is token ``i // n_experts_per_token``.
    """
    graph, k = layer.graph, moe.n_experts_per_token
    chosen = graph.op("Reshape", routes.chosen, graph.constant([-1]))
    count = graph.op("Shape", chosen)
    _, assignments = graph.ops("TopK", chosen, count, n_outputs=2, largest=0)
    rows = graph.op("Gather", x, graph.op("Div", assignments, graph.constant([k])))
    outputs = graph.op("Concat", *_group_outputs(layer, moe, rows, chosen), axis=0)
    _, places = graph.ops("TopK", assignments, count, n_outputs=2, largest=0)
    shape = graph.constant([-1, k, layer.spec.hidden_size])
    by_token = graph.op("Reshape", graph.op("Gather", outputs, places), shape)
    weights = graph.op("GatherElements", routes.weights, routes.chosen, axis=1)
    total = graph.op("MatMul", graph.op("Unsqueeze", weights, graph.constant([1])), by_token)
    return graph.op("Reshape", total, graph.op("Shape", x))


def _group_outputs(layer: Layer, moe: MoESpec, rows: Value, chosen: Value) -> list[Value]:
    """The outputs of each group of experts for its part of ``rows``."""
    graph = layer.graph
    size = 1 if layer.portable else math.gcd(_GROUP, moe.n_routed_experts)
    n_groups = moe.n_routed_experts // size
    ones = graph.op("Expand", graph.constant([1]), graph.op("Shape", chosen))
    zeros = graph.constant(np.zeros(moe.n_routed_experts))
    n_rows = graph.op("ScatterElements", zeros, chosen, ones, axis=0, reduction="add")
    by_group = graph.op("Reshape", n_rows, graph.constant([n_groups, size]))
    totals = graph.op("ReduceSum", by_group, graph.constant([1]), keepdims=0)
    split = partial(graph.ops, "Split", n_outputs=n_groups, axis=0)
    are_used = split(graph.op("Greater", totals, graph.constant([0])), num_outputs=n_groups)
    groups = zip(split(rows, totals), split(n_rows, num_outputs=n_groups), are_used, strict=True)
    nothing = graph.constant(np.empty((0, layer.spec.hidden_size)), np.float32)
    outputs = []
    for group, (its_rows, its_sizes, is_used) in enumerate(groups):
        experts = range(group * size, (group + 1) * size)
        with graph.scope(f"experts.{experts[0]}"):
            then = graph.branch("used", partial(_experts, layer, experts, its_rows, its_sizes))
            otherwise = graph.branch("idle", lambda: [graph.op("Identity", nothing)])
            outputs.append(graph.op("If", is_used, then_branch=then, else_branch=otherwise))
    return outputs


def _experts(layer: Layer, experts: range, rows: Value, sizes: Value) -> Sequence[Value]:
    """The outputs of several experts, the first ``sizes[0]`` of ``rows`` being those of the first expert.

    The activation is that of all of them together: fewer nodes, and larger ones.
    """
    graph, weights = layer.graph, layer.weights
    gate_up = [_products(layer, weight, experts, rows, sizes) for weight in weights.gate_up(layer.number)]
    if len(gate_up) == 2:
        hidden = gated(graph, *gate_up)
    else:
        pairs = graph.op("Reshape", gate_up[0], graph.constant([0, -1, 2]))
        gate, up = graph.ops("Split", pairs, n_outputs=2, axis=2, num_outputs=2)
        hidden = graph.op("Squeeze", gated(graph, gate, up), graph.constant([2]))
    return [_products(layer, weights.down(layer.number), experts, hidden, sizes)]


def _products(layer: Layer, weight: OnnxWeight, experts: range, rows: Value, sizes: Value) -> Value:
    """Each expert's part of ``rows`` times its matrix of ``weight``."""
    if len(experts) == 1:
        return layer.weights.product(rows, weight, part=experts[0])
    parts = layer.graph.ops("Split", rows, sizes, n_outputs=len(experts), axis=0)
    products = (layer.weights.product(part, weight, part=expert) for expert, part in zip(experts, parts, strict=True))
    return layer.graph.op("Concat", *products, axis=0)
