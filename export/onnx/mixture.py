"""A mixture of experts: the router, DeepSeek's choice, and the experts, of which only the chosen are computed.

With contributed operators ``QMoE`` chooses by one matrix and mixes by another, which is what DeepSeek needs: V2-Lite's
scores are not normalised, and V3's bias counts for the choice alone. Experts of floats, and all of a portable graph,
stand in an ``If`` each, so that those without a token cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from sprat.export.onnx.data import StoredWeight
from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.layer import Layer
from sprat.export.onnx.mlp import gated, mlp
from sprat.runtime.arch.spec import GroupScore, MoESpec, Scoring

__all__ = ["mixture"]


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """What decides the choice and what outputs are weighted with, ``["n", n_routed_experts]``; the chosen numbers."""

    choice: Value
    shares: Value
    chosen: Value


def mixture(layer: Layer, moe: MoESpec, x: Value) -> Value:
    """Weighted sum of the chosen experts' MLPs, plus the shared ones': ``["n", hidden]`` to ``["n", hidden]``."""
    with layer.graph.scope("moe"):
        routes = _route(layer, moe, x)
        fused = layer.fused_experts()
        out = _fused(layer, moe, x, routes, *fused) if fused else _one_by_one(layer, x, routes)
    if not moe.n_shared_experts:
        return out
    return layer.graph.op("Add", out, mlp(layer, x, "_shexp"))


def _route(layer: Layer, moe: MoESpec, x: Value) -> Routes:
    graph = layer.graph
    logits = graph.op("Gemm", x, layer.vector("ffn_gate_inp.weight"), transB=1, name="router")
    scores = graph.op("Softmax" if moe.scoring is Scoring.SOFTMAX else "Sigmoid", logits)
    choice = graph.op("Add", scores, layer.vector("exp_probs_b.bias")) if moe.correction_bias else scores
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


def _fused(layer: Layer, moe: MoESpec, x: Value, routes: Routes, gate_up: StoredWeight, down: StoredWeight) -> Value:
    """All experts in one ``QMoE``; rows of gate and up alternate."""
    fc1, fc2 = (layer.weights.arrays.rows(weight) for weight in (gate_up, down))
    return layer.graph.op(
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
        accuracy_level=layer.weights.options.accuracy_level,
    )


def _one_by_one(layer: Layer, x: Value, routes: Routes) -> Value:
    """Every expert in an ``If`` of its own, which adds its tokens' outputs to the sum."""
    graph = layer.graph
    out = graph.op("Mul", x, graph.constant(0, np.float32))
    nobody = graph.op("Mul", routes.shares, graph.constant(0, np.float32))
    ones = graph.op("Expand", graph.constant(1, np.float32), graph.op("Shape", routes.chosen))
    is_chosen = graph.op("ScatterElements", nobody, routes.chosen, ones, axis=1)
    n_tokens = graph.op("ReduceSum", is_chosen, graph.constant([0]), keepdims=0)
    experts = [layer.experts(matrix) for matrix in ("gate", "up", "down")]
    for number in range(experts[0].source.shape[0]):
        with graph.scope(f"expert.{number}"):
            has_tokens = graph.op("Cast", graph.op("Gather", n_tokens, graph.constant(number)), to=ir.DataType.BOOL)
            then = graph.branch("chosen", partial(_added, layer, experts, number, x, is_chosen, routes.shares, out))
            otherwise = graph.branch("idle", partial(graph.op, "Identity", out))
            out = graph.op("If", has_tokens, then_branch=then, else_branch=otherwise)
    return out


def _added(
    layer: Layer,
    experts: Sequence[StoredWeight],
    number: int,
    x: Value,
    is_chosen: Value,
    shares: Value,
    out: Value,
) -> Value:
    """``out`` plus what one expert makes of the tokens that chose it."""
    graph, weights = layer.graph, layer.weights
    tokens = graph.op("NonZero", graph.op("Gather", is_chosen, graph.constant(number), axis=1))
    places = graph.op("Transpose", tokens, perm=[1, 0])  # (m, 1)
    rows = graph.op("GatherND", x, places)
    gate, up = (weights.product(rows, matrix, part=number) for matrix in experts[:2])
    result = weights.product(gated(graph, gate, up), experts[2], part=number)
    share = graph.op("GatherND", graph.op("Gather", shares, graph.constant([number]), axis=1), places)  # (m, 1)
    return graph.op("ScatterND", out, places, graph.op("Mul", result, share), reduction="add")
