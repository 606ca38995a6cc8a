"""The graph of a whole model, built from its spec and the shapes of its tensors; nothing is traced or read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sprat.errors import ExportError
from sprat.export.onnx.data import DataFile
from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.layers.grouped_attention import Batch, KVValues, grouped_attention, shares_cache
from sprat.export.onnx.layers.latent_attention import latent_attention
from sprat.export.onnx.layers.layer import Layer
from sprat.export.onnx.layers.mlp import mlp
from sprat.export.onnx.layers.moe import moe_mlp
from sprat.export.onnx.layers.norms import add_and_norm, rms_norm
from sprat.export.onnx.layers.positions import causal_mask, positions, rotary_angles
from sprat.export.onnx.options import OnnxOptions
from sprat.export.onnx.weights import GraphWeights
from sprat.export.source.tensor import SourceTensor
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.attention import GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["BuiltModel", "build_model"]

_CONTRIB_OPSET = 1
_IR_VERSION = 10
_FLOAT, _INT32, _INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64

Attend = Callable[[Layer, Value], Value]  # layer, normed hidden states -> residual


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A graph, and the layout of its weights."""

    model: ir.Model
    data: DataFile
    cache: str  # cache layout: "append", "shared" or "concat"; see docs/onnx.md
    requires: str  # "onnxruntime >= 1.22"


def build_model(
    spec: ModelSpec, tensors: Mapping[str, SourceTensor], recipe: Recipe, options: OnnxOptions, *, name: str
) -> BuiltModel:
    """Build the graph of ``spec``.

    Args:
        spec: the architecture and its dimensions.
        tensors: canonical name -> tensor; only names and shapes are used.
        recipe: the format of every weight.
        options: options of the graph.
        name: name of the graph.
    """
    graph = GraphBuilder(name)
    weights = GraphWeights(graph, tensors, recipe, options)
    match spec.attention:
        case LatentAttentionSpec() as attention:
            cache = "append"
            _latent_model(graph, weights, spec, attention)
        case GroupedAttentionSpec() as attention:
            cache = "shared" if shares_cache(attention, portable=options.portable) else "concat"
            _grouped_model(graph, weights, spec, attention)
        case attention:
            raise ExportError(f"{name}: no ONNX graph for {type(attention).__name__}; export it with --format gguf")
    opsets = {"": graph.opset} if options.portable else {"": graph.opset, CONTRIB: _CONTRIB_OPSET}
    requires = f"onnxruntime >= {graph.ort}" + (f", ONNX opset {graph.opset}" if options.portable else "")
    model = ir.Model(graph.finish(opsets), ir_version=_IR_VERSION, producer_name="sprat")
    return BuiltModel(model, weights.arrays.data, cache, requires)


def _latent_model(graph: GraphBuilder, weights: GraphWeights, spec: ModelSpec, attention: LatentAttentionSpec) -> None:
    """A model of latent attention over a cache of latents, of one sequence."""
    latent_dim = attention.latent_dim
    input_ids = graph.input("input_ids", _INT64, (1, "n"))
    tokens = graph.op("Reshape", input_ids, graph.constant([-1]))
    n_logits = graph.optional_input("n_logits", np.zeros(1, np.int64))
    pasts = [graph.input(f"past_latent.{i}", _FLOAT, ("past", latent_dim)) for i in range(spec.n_layers)]
    at = positions(graph, graph.op("Shape", pasts[0], end=1), graph.op("Shape", tokens))
    angles = rotary_angles(graph, spec.rope, at, portable=weights.options.portable)
    keys, queries = (graph.op("Unsqueeze", at, graph.constant(axes)) for axes in ([0, 1], [1, 2]))
    mask = causal_mask(graph, keys, queries)
    rows: list[Value] = []

    def attend(layer: Layer, x: Value) -> Value:
        out, new = latent_attention(layer, attention, x, pasts[layer.number], angles, mask)
        rows.append(new)
        return out

    x = _layers(graph, weights, spec, weights.embedding(tokens), attend)
    logits = _head(graph, weights, spec, x, graph.op("Shape", input_ids), n_logits)
    graph.output("logits", logits, _FLOAT, (1, "n_out", spec.vocab_size))
    for layer, new in enumerate(rows):
        graph.output(f"new_latent.{layer}", new, _FLOAT, ("n", latent_dim))


def _grouped_model(
    graph: GraphBuilder, weights: GraphWeights, spec: ModelSpec, attention: GroupedAttentionSpec
) -> None:
    """A model of grouped attention with the inputs and outputs of onnxruntime-genai."""
    input_ids = graph.input("input_ids", _INT64, ("batch", "n"))
    batch = _batch(graph, weights, spec, attention, input_ids)
    n_logits = graph.optional_input("n_logits", np.zeros(1, np.int64))
    shape = ("batch", attention.n_kv_heads, "past", attention.head_dim)
    pasts = [
        KVValues(*(graph.input(f"past_key_values.{i}.{part}", _FLOAT, shape) for part in ("key", "value")))
        for i in range(spec.n_layers)
    ]
    presents: list[KVValues] = []

    def attend(layer: Layer, x: Value) -> Value:
        out, present = grouped_attention(layer, attention, x, pasts[layer.number], batch)
        presents.append(present)
        return out

    tokens = graph.op("Reshape", input_ids, graph.constant([-1]))
    x = _layers(graph, weights, spec, weights.embedding(tokens), attend)
    logits = _head(graph, weights, spec, x, batch.shape, n_logits)
    graph.output("logits", logits, _FLOAT, ("batch", "n_out", spec.vocab_size))
    shape = ("batch", attention.n_kv_heads, "present", attention.head_dim)
    for layer, present in enumerate(presents):
        graph.output(f"present.{layer}.key", present.keys, _FLOAT, shape)
        graph.output(f"present.{layer}.value", present.values, _FLOAT, shape)


def _batch(
    graph: GraphBuilder, weights: GraphWeights, spec: ModelSpec, attention: GroupedAttentionSpec, input_ids: Value
) -> Batch:
    """Inputs that the layers share; the depth is the length of ``attention_mask`` minus the new tokens."""
    attention_mask = graph.input("attention_mask", _INT64, ("batch", "total"))
    shape, portable = graph.op("Shape", input_ids), weights.options.portable
    n, total = graph.op("Shape", input_ids, start=1), graph.op("Shape", attention_mask, start=1)
    start = graph.op("Sub", total, n)
    at = positions(graph, start, n)
    mask = None
    if not shares_cache(attention, portable=portable):
        keys = positions(graph, graph.constant([0]), total)
        mask = causal_mask(graph, keys, graph.op("Unsqueeze", at, graph.constant([1])))
    lengths = graph.op("ReduceSum", attention_mask, graph.constant([1]), keepdims=0)
    last = graph.op("Cast", graph.op("Sub", lengths, graph.constant([1])), to=_INT32)
    longest = graph.op("Cast", graph.op("Squeeze", total), to=_INT32)
    return Batch(shape, last, longest, mask, rotary_angles(graph, spec.rope, at, portable=portable))


def _layers(graph: GraphBuilder, weights: GraphWeights, spec: ModelSpec, x: Value, attend: Attend) -> Value:
    """All layers and the output norm: ``x += attention(norm(x)); x += mlp(norm(x))``."""
    eps, portable = spec.rms_norm_eps, weights.options.portable
    delta: Value | None = None  # residual of the previous sublayer, added together with the next norm

    def norm(name: str) -> Value:
        nonlocal x
        gain = weights.vector(f"{name}.weight")
        if delta is None:
            return rms_norm(graph, x, gain, eps, portable=portable)
        normed, x = add_and_norm(graph, x, delta, gain, eps, portable=portable)
        return normed

    for layer in (Layer(graph, weights, spec, number) for number in range(spec.n_layers)):
        with graph.scope(f"blk.{layer.number}"):
            delta = attend(layer, norm(f"blk.{layer.number}.attn_norm"))
            normed = norm(f"blk.{layer.number}.ffn_norm")
            routed = spec.moe if spec.is_moe_layer(layer.number) else None
            delta = moe_mlp(layer, routed, normed) if routed else mlp(layer, normed)
    return norm("output_norm")


def _head(
    graph: GraphBuilder, weights: GraphWeights, spec: ModelSpec, x: Value, shape: Value, n_logits: Value
) -> Value:
    """Logits ``[batch, "n_out", vocab_size]`` of the last ``n_logits`` tokens of each sequence, or of all."""
    with graph.scope("head"):
        by_sequence = graph.op("Concat", shape, graph.constant([spec.hidden_size]), axis=0)
        end = graph.constant([np.iinfo(np.int64).max])
        start = graph.op("Neg", n_logits)
        last = graph.op("Slice", graph.op("Reshape", x, by_sequence), start, end, graph.constant([1]))
        flat = graph.op("Reshape", last, graph.constant([-1, spec.hidden_size]))
        logits = weights.head(flat, "token_embd" if spec.tied_embeddings else "output")
        batch = graph.op("Shape", last, end=2)
        return graph.op("Reshape", logits, graph.op("Concat", batch, graph.constant([spec.vocab_size]), axis=0))
