"""Mapping from the tensors of a Hugging Face checkpoint to the canonical ones, with GGUF's names and conventions.

Most tensors are only renamed. The exceptions:

1. Grouped attention with interleaved RoPE (``llama``): rows of q and k are reordered from halves to pairs, since GGUF's
   llama rotates pairs (2i, 2i+1).
2. Latent attention: ``kv_b_proj`` holds, per head, ``qk_nope`` rows for keys and ``v_head_dim`` rows for values. The
   keys' part becomes ``attn_k_b``, transposed per head to ``(n_heads, kv_lora_rank, qk_nope)``, so that it can be
   absorbed into the query; the values' part becomes ``attn_v_b``, ``(n_heads, v_head_dim, kv_lora_rank)``.
3. Experts, one tensor each in a checkpoint, are stacked to ``(n_experts, out, in)``.

Tensors that are not used are sorted out before: :mod:`sprat.export.source.recognize.left_out`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sprat.export.source.rows import (
    Columns,
    HeadRows,
    InterleavedHeads,
    RowRange,
    RowSource,
    Stacked,
    TransposedHeads,
    in_one_format,
)
from sprat.runtime.arch.architecture import architectures
from sprat.runtime.arch.attention import GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors, is_routed_expert, mtp_tensors
from sprat.runtime.files.latent_tensors import KV_B, unsplit_layers
from sprat.runtime.files.shape_checks import Shapes

__all__ = ["Origin", "gguf_map", "mtp_map", "of_experts", "replaced_in_gguf", "tensor_map"]

_GLOBAL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_k_b": "self_attn.kv_b_proj",
    "attn_v_b": "self_attn.kv_b_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{expert}.gate_proj",
    "ffn_up_exps": "mlp.experts.{expert}.up_proj",
    "ffn_down_exps": "mlp.experts.{expert}.down_proj",
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
    "eh_proj": "eh_proj",  # from here on of an MTP layer
    "enorm": "enorm",
    "hnorm": "hnorm",
    "embed_tokens": "embed_tokens",
    "shared_head_head": "shared_head.head",
    "shared_head_norm": "shared_head.norm",
}
_WITHOUT_SUFFIX = {"exp_probs_b.bias": "mlp.gate.e_score_correction_bias"}

Build = Callable[[Sequence[RowSource]], RowSource]


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a canonical tensor.

    Attributes:
        shape: of the canonical tensor.
        sources: names in the checkpoint; more than one for stacked experts.
        source_shape: of each source.
        build: the sources' rows -> the canonical tensor's rows.
    """

    shape: tuple[int, ...]
    sources: tuple[str, ...]
    source_shape: tuple[int, ...]
    build: Build


def tensor_map(spec: ModelSpec) -> dict[str, Origin]:
    """Canonical name -> origin, for every tensor that a checkpoint of ``spec`` must have, in canonical order."""
    expected = expected_tensors(spec)
    expected.pop(ROPE_FREQS, None)  # computed from the config, never stored in a checkpoint
    return {name: _origin(name, shape, spec) for name, shape in expected.items()}


def mtp_map(spec: ModelSpec) -> dict[str, Origin]:
    """Canonical name -> origin, for the MTP layers of a checkpoint of ``spec``."""
    return {name: _origin(name, shape, spec) for name, shape in mtp_tensors(spec).items()}


def gguf_map(spec: ModelSpec, shapes: Shapes) -> dict[str, Origin]:
    """Canonical name -> origin, for a GGUF of ``spec``, whose names are canonical already.

    Args:
        spec: the architecture.
        shapes: name -> shape of the file's tensors: old files of DeepSeek have ``attn_kv_b``, which must be split.
    """
    kept = {name: shape for name, shape in mtp_tensors(spec).items() if name in shapes}
    origins = {name: _in_gguf(name, shape) for name, shape in (expected_tensors(spec) | kept).items()}
    for prefix, names in unsplit_layers(spec, shapes).items():
        assert isinstance(spec.attention, LatentAttentionSpec), "only latent attention has attn_kv_b"
        for name in names:
            kind = name.split(".")[-2]
            origins[name] = _latent_origin(kind, origins[name].shape, prefix + KV_B, spec.attention)
    return origins


def replaced_in_gguf(spec: ModelSpec, shapes: Shapes) -> set[str]:
    """The tensors of a GGUF that are not read because others hold the same weights.

    Where a file has ``attn_kv_b`` and its two parts, the parts are read if they have the expected shapes.
    """
    layers = unsplit_layers(spec, shapes).items()
    return {name for prefix, names in layers for name in (names or (prefix + KV_B,)) if name in shapes}


def of_experts(origin: Origin, experts: Sequence[int]) -> Origin:
    """The origin of a tensor with an entry per expert, with the entries of ``experts`` only, in this order."""
    _, *others = origin.shape
    height = math.prod(others[:-1])

    def build(parts: Sequence[RowSource]) -> RowSource:
        rows = origin.build(parts)
        if not others:  # one bias per expert
            return Columns(in_one_format([rows], elementwise=True)[0], experts)
        if isinstance(rows, Stacked):
            return Stacked([rows.parts[expert] for expert in experts])
        return Stacked([RowRange(rows, expert * height, height) for expert in experts])

    return replace(origin, shape=(len(experts), *others), build=build)


def _origin(name: str, shape: tuple[int, ...], spec: ModelSpec) -> Origin:
    source = _source_name(name, architectures()[spec.architecture].hf_tensors)
    if "{expert}" in source:
        sources = tuple(source.format(expert=expert) for expert in range(shape[0]))
        return Origin(shape, sources, shape[1:], lambda parts: Stacked(in_one_format(parts)))
    kind = name.split(".")[-2]
    match spec.attention:
        case LatentAttentionSpec() as attention if kind in {"attn_k_b", "attn_v_b"}:
            return _latent_origin(kind, shape, source, attention)
        case GroupedAttentionSpec() as attention if spec.rope.interleaved and kind in {"attn_q", "attn_k"}:
            n_heads = attention.n_heads if kind == "attn_q" else attention.n_kv_heads
            return Origin(shape, (source,), shape, lambda parts: InterleavedHeads(parts[0], n_heads))
    return _renamed(source, shape)


def _in_gguf(name: str, shape: tuple[int, ...]) -> Origin:
    """A tensor of its own name; experts as parts, which are read one at a time."""
    origin = _renamed(name, shape)
    return of_experts(origin, range(shape[0])) if is_routed_expert(name) else origin


def _renamed(source: str, shape: tuple[int, ...]) -> Origin:
    return Origin(shape, (source,), shape, lambda parts: parts[0])


def _latent_origin(kind: str, shape: tuple[int, ...], source: str, attention: LatentAttentionSpec) -> Origin:
    n_heads, nope, value = attention.n_heads, attention.qk_nope_head_dim, attention.v_head_dim
    source_shape = (n_heads * (nope + value), attention.kv_lora_rank)

    def keys(parts: Sequence[RowSource]) -> RowSource:
        return TransposedHeads(in_one_format(parts, elementwise=True)[0], n_heads, nope)

    def values(parts: Sequence[RowSource]) -> RowSource:
        return HeadRows(parts[0], n_heads, nope, value)

    return Origin(shape, (source,), source_shape, keys if kind == "attn_k_b" else values)


def _source_name(name: str, renamed: Mapping[str, str]) -> str:
    """The checkpoint's name of the canonical tensor ``name``, with ``{expert}`` for the index of an expert."""
    *layer, kind, suffix = name.split(".")  # blk.3.attn_q.weight, or output_norm.weight
    if not layer:
        return f"{_GLOBAL[kind]}.{suffix}"
    here = _WITHOUT_SUFFIX.get(f"{kind}.{suffix}") or f"{renamed.get(kind) or _IN_LAYER[kind]}.{suffix}"
    return f"model.layers.{layer[1]}.{here}"
