"""A mixture of experts: the router, DeepSeek's choice, and the experts, of which only the chosen are computed.

With contributed operators ``QMoE`` chooses by one matrix and mixes by another, which is what DeepSeek needs: V2-Lite's
scores are not normalised, and V3's bias counts for the choice alone. Experts of floats, and all of a portable graph,
stand in an ``If`` each, so that those without a token cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sprat.export.onnx.data import StoredWeight
from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.mlp import gated, mlp
from sprat.export.onnx.weights import GraphWeights
from sprat.runtime.spec import GroupScore, MoESpec, Scoring

__all__ = ["mixture"]


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """What decides the choice and what outputs are weighted with, ``["n", n_routed_experts]``; the chosen numbers."""

    choice: Value
    shares: Value
    chosen: Value


def mixture(graph: GraphBuilder, weights: GraphWeights, moe: MoESpec, layer: int, x: Value) -> Value:
    """Weighted sum of the chosen experts' MLPs, plus the shared ones': ``["n", hidden]`` to ``["n", hidden]``."""
    with graph.scope("moe"):
        routes = _route(graph, weights, moe, layer, x)
        fused = weights.fused_experts(layer)
        out = _fused(graph, weights, moe, x, routes, *fused) if fused else _one_by_one(graph, weights, layer, x, routes)
    if not moe.n_shared_experts:
        return out
    return graph.op("Add", out, mlp(graph, weights, layer, x, "_shexp"))


def _route(graph: GraphBuilder, weights: GraphWeights, moe: MoESpec, layer: int, x: Value) -> Routes:
    logits = graph.op("Gemm", x, weights.vector(f"blk.{layer}.ffn_gate_inp.weight"), transB=1, name="router")
    scores = graph.op("Softmax", logits) if moe.scoring is Scoring.SOFTMAX else graph.op("Sigmoid", logits)
    choice = scores
    if moe.correction_bias:
        choice = graph.op("Add", scores, weights.vector(f"blk.{layer}.exp_probs_b.bias"))
    if moe.n_groups_per_token < moe.n_groups:
        choice = _limit_to_groups(graph, moe, choice)
    _, chosen = graph.ops("TopK", choice, graph.constant([moe.n_experts_per_token]), n_outputs=2)
    return Routes(choice, _shares(graph, moe, scores, chosen), chosen)


def _limit_to_groups(graph: GraphBuilder, moe: MoESpec, choice: Value) -> Value:
    """Scores with every expert outside the best groups at minus infinity."""
    groups = graph.op("Reshape", choice, graph.constant([0, moe.n_groups, -1]))
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
    return graph.op("Reshape", limited, graph.op("Shape", choice))


def _shares(graph: GraphBuilder, moe: MoESpec, scores: Value, chosen: Value) -> Value:
    """What each expert's output would be weighted with."""
    if moe.normalize:
        total = graph.op("ReduceSum", graph.op("GatherElements", scores, chosen, axis=1), graph.constant([1]))
        scores = graph.op("Div", scores, graph.op("Add", total, graph.constant(1e-20, np.float32)))
    return scores if moe.scaling == 1.0 else graph.op("Mul", scores, graph.constant(moe.scaling, np.float32))


def _fused(
    graph: GraphBuilder,
    weights: GraphWeights,
    moe: MoESpec,
    x: Value,
    routes: Routes,
    gate_up: StoredWeight,
    down: StoredWeight,
) -> Value:
    """All experts in one ``QMoE``; rows of gate and up alternate."""
    fc1, fc2 = weights.arrays.rows(gate_up), weights.arrays.rows(down)
    return graph.op(
        "QMoE",
        *(x, routes.choice, fc1.codes, fc1.scales, None, fc2.codes, fc2.scales, None),
        *(None, None, None, fc1.zeros, fc2.zeros, None, routes.shares),
        domain=CONTRIB,
        k=moe.n_experts_per_token,
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.0,
        activation_beta=0.0,
        normalize_routing_weights=0,
        block_size=gate_up.format.block_size,
        expert_weight_bits=gate_up.bits,
        fc2_expert_weight_bits=down.bits,
        accuracy_level=weights.options.accuracy_level,
    )


def _one_by_one(graph: GraphBuilder, weights: GraphWeights, layer: int, x: Value, routes: Routes) -> Value:
    """Every expert in an ``If`` of its own, which adds its tokens' outputs to the sum."""
    out = graph.op("Mul", x, graph.constant(0, np.float32))
    nothing = graph.op("Mul", routes.shares, graph.constant(0, np.float32))
    ones = graph.op("Expand", graph.constant(1, np.float32), graph.op("Shape", routes.chosen))
    is_chosen = graph.op("ScatterElements", nothing, routes.chosen, ones, axis=1)
    n_tokens = graph.op("ReduceSum", is_chosen, graph.constant([0]), keepdims=0)
    parts = [weights.experts(layer, part) for part in ("gate", "up", "down")]
    for expert in range(parts[0].source.shape[0]):
        with graph.scope(f"expert.{expert}"):
            number = graph.constant(expert)
            has_tokens = graph.op("Cast", graph.op("Gather", n_tokens, number), to=ir.DataType.BOOL)
            branches = _branches(graph, weights, parts, expert, x, is_chosen, routes.shares, out)
            out = graph.op("If", has_tokens, then_branch=branches[0], else_branch=branches[1])
    return out


def _branches(
    graph: GraphBuilder,
    weights: GraphWeights,
    parts: Sequence[StoredWeight],
    expert: int,
    x: Value,
    is_chosen: Value,
    shares: Value,
    out: Value,
) -> tuple[ir.Graph, ir.Graph]:
    """The sum with the expert's part, and the sum as it is."""

    def add() -> Value:
        number = graph.constant([expert])
        tokens = graph.op("NonZero", graph.op("Gather", is_chosen, graph.constant(expert), axis=1))
        places = graph.op("Transpose", tokens, perm=[1, 0])  # (m, 1)
        rows = graph.op("GatherND", x, places)
        gate, up = (weights.product(rows, part, part=expert) for part in parts[:2])
        result = weights.product(gated(graph, gate, up), parts[2], part=expert)
        share = graph.op("GatherND", graph.op("Gather", shares, number, axis=1), places)  # (m, 1)
        return graph.op("ScatterND", out, places, graph.op("Mul", result, share), reduction="add")

    return graph.branch("chosen", add), graph.branch("idle", lambda: graph.op("Identity", out))
