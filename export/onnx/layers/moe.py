"""The MoE sublayer: router, DeepSeek's expert selection, and experts, of which only the chosen ones are computed.

``QMoE`` selects experts by one matrix and weights their outputs by another, as DeepSeek needs: V2-Lite's scores are not
normalized, and V3's correction bias affects only the selection. Float experts, and all experts of a portable graph, are
in one ``If`` each, so that experts without tokens are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from sprat.export.onnx.data import OnnxWeight
from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.layers.layer import Layer
from sprat.export.onnx.layers.mlp import gated, mlp
from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring

__all__ = ["moe_mlp"]


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """Selection scores and output weights, ``["n", n_routed_experts]`` each, and the ids of the chosen experts."""

    scores: Value
    weights: Value
    chosen: Value


def moe_mlp(layer: Layer, moe: MoESpec, x: Value) -> Value:
    """Weighted sum of the chosen experts, plus the shared experts: ``["n", hidden]`` to ``["n", hidden]``."""
    with layer.graph.scope("moe"):
        routes = _route(layer, moe, x)
        fused = layer.fused_experts()
        out = _fused(layer, moe, x, routes, *fused) if fused else _one_if_per_expert(layer, x, routes)
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


def _fused(layer: Layer, moe: MoESpec, x: Value, routes: Routes, gate_up: OnnxWeight, down: OnnxWeight) -> Value:
    """All experts in one ``QMoE``; the rows of gate and up alternate."""
    fc1, fc2 = (layer.weights.arrays.rows(weight) for weight in (gate_up, down))
    return layer.graph.op(
        "QMoE",
        *(x, routes.scores, fc1.codes, fc1.scales, None, fc2.codes, fc2.scales, None),
        *(None, None, None, fc1.zeros, fc2.zeros, None, routes.weights),
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


def _one_if_per_expert(layer: Layer, x: Value, routes: Routes) -> Value:
    """One ``If`` per expert, which adds the outputs of its tokens to the sum."""
    graph = layer.graph
    out = graph.op("Mul", x, graph.constant(0, np.float32))
    zeros = graph.op("Mul", routes.weights, graph.constant(0, np.float32))
    ones = graph.op("Expand", graph.constant(1, np.float32), graph.op("Shape", routes.chosen))
    is_chosen = graph.op("ScatterElements", zeros, routes.chosen, ones, axis=1)
    n_tokens = graph.op("ReduceSum", is_chosen, graph.constant([0]), keepdims=0)
    experts = [layer.experts(matrix) for matrix in ("gate", "up", "down")]
    for expert in range(experts[0].source.shape[0]):
        with graph.scope(f"expert.{expert}"):
            has_tokens = graph.op("Cast", graph.op("Gather", n_tokens, graph.constant(expert)), to=ir.DataType.BOOL)
            then = graph.branch(
                "chosen", partial(_add_expert, layer, experts, expert, x, is_chosen, routes.weights, out)
            )
            otherwise = graph.branch("idle", partial(graph.op, "Identity", out))
            out = graph.op("If", has_tokens, then_branch=then, else_branch=otherwise)
    return out


def _add_expert(
    layer: Layer,
    experts: Sequence[OnnxWeight],
    expert: int,
    x: Value,
    is_chosen: Value,
    output_weights: Value,
    out: Value,
) -> Value:
    """``out`` plus the weighted output of one expert for its tokens."""
    graph, weights = layer.graph, layer.weights
    tokens = graph.op("NonZero", graph.op("Gather", is_chosen, graph.constant(expert), axis=1))
    indices = graph.op("Transpose", tokens, perm=[1, 0])  # (m, 1)
    rows = graph.op("GatherND", x, indices)
    gate, up = (weights.product(rows, matrix, part=expert) for matrix in experts[:2])
    result = weights.product(gated(graph, gate, up), experts[2], part=expert)
    column = graph.op("Gather", output_weights, graph.constant([expert]), axis=1)
    weight = graph.op("GatherND", column, indices)  # (m, 1)
    return graph.op("ScatterND", out, indices, graph.op("Mul", result, weight), reduction="add")
