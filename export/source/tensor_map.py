"""How the tensors of a Hugging Face checkpoint become the canonical ones (GGUF's names and conventions).

Most are renamed. The others:

1. ``llama``: rows of q and k are reordered from halves to neighbouring pairs, since GGUF's llama rotates pairs (2i,
   2i+1).
2. ``deepseek2``: ``kv_b_proj`` holds, per head, ``qk_nope`` rows for keys and ``v_head_dim`` rows for values. The keys'
   part becomes ``attn_k_b``, transposed per head to ``(n_heads, kv_lora_rank, qk_nope)``, so that it can be absorbed
   into the query; the values' part becomes ``attn_v_b``, ``(n_heads, v_head_dim, kv_lora_rank)``.
3. Experts, one tensor each in a checkpoint, are stacked to ``(n_experts, out, in)``.

Some tensors are left out by rule: the layers of multi-token prediction (DeepSeek-V3, numbered from ``n_layers`` on),
rotary frequencies that old checkpoints saved as buffers, and an output layer that is tied to the embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sprat.export.source.rows import HeadRows, InterleavedHeads, Rows, Stacked, TransposedHeads, alike
from sprat.runtime.arch.spec import Architecture, MLASpec, ModelSpec
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors

__all__ = ["Origin", "gguf_map", "left_out", "tensor_map"]

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
}
_WITHOUT_SUFFIX = {"exp_probs_b.bias": "mlp.gate.e_score_correction_bias"}
_BUFFER = re.compile(r".*\.rotary_emb\.inv_freq")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")

Build = Callable[[Sequence[Rows]], Rows]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a canonical tensor comes from.

    Attributes:
        shape: of the canonical tensor.
        sources: names in the checkpoint; more than one for stacked experts.
        source_shape: of each of them.
        build: rows of the sources -> rows of the canonical tensor.
    """

    shape: tuple[int, ...]
    sources: tuple[str, ...]
    source_shape: tuple[int, ...]
    build: Build


def tensor_map(spec: ModelSpec) -> dict[str, Origin]:
    """Canonical name -> origin, for every tensor that a checkpoint of ``spec`` must hold, in canonical order."""
    expected = expected_tensors(spec)
    expected.pop(ROPE_FREQS, None)  # computed from the config, never stored in a checkpoint
    return {name: _origin(name, shape, spec) for name, shape in expected.items()}


def gguf_map(spec: ModelSpec) -> dict[str, Origin]:
    """Canonical name -> origin, for a GGUF of ``spec``: every tensor is what it is called."""
    return {name: _renamed(name, shape) for name, shape in expected_tensors(spec).items()}


def left_out(name: str, spec: ModelSpec, config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's tensor is left out by rule, rather than surplus.

    Args:
        name: in the checkpoint.
        spec: the architecture.
        config: says how many layers of multi-token prediction follow the model's own.
    """
    if _BUFFER.fullmatch(name) or (spec.tied_embeddings and name == "lm_head.weight"):
        return True
    n_predicting = config.get("num_nextn_predict_layers")
    layer = _LAYER.match(name)
    beyond = int(layer[1]) - spec.n_layers if layer else -1
    return isinstance(n_predicting, int) and 0 <= beyond < n_predicting


def _origin(name: str, shape: tuple[int, ...], spec: ModelSpec) -> Origin:
    source = _source_name(name)
    if "{expert}" in source:
        sources = tuple(source.format(expert=expert) for expert in range(shape[0]))
        return Origin(shape, sources, shape[1:], lambda parts: Stacked(alike(parts)))
    kind = name.split(".")[-2]
    if spec.mla and kind in {"attn_k_b", "attn_v_b"}:
        return _latent_origin(kind, shape, source, spec.n_heads, spec.mla)
    if spec.architecture is Architecture.LLAMA and kind in {"attn_q", "attn_k"}:
        n_heads = spec.n_heads if kind == "attn_q" else spec.n_kv_heads
        return Origin(shape, (source,), shape, lambda parts: InterleavedHeads(parts[0], n_heads))
    return _renamed(source, shape)


def _renamed(source: str, shape: tuple[int, ...]) -> Origin:
    return Origin(shape, (source,), shape, lambda parts: parts[0])


def _latent_origin(kind: str, shape: tuple[int, ...], source: str, n_heads: int, mla: MLASpec) -> Origin:
    source_shape = (n_heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank)

    def keys(parts: Sequence[Rows]) -> Rows:
        return TransposedHeads(alike(parts, splittable=True)[0], n_heads, mla.qk_nope_head_dim)

    def values(parts: Sequence[Rows]) -> Rows:
        return HeadRows(parts[0], n_heads, mla.qk_nope_head_dim, mla.v_head_dim)

    return Origin(shape, (source,), source_shape, keys if kind == "attn_k_b" else values)


def _source_name(name: str) -> str:
    """The checkpoint's name of the canonical tensor ``name``, with ``{expert}`` where the experts' numbers stand."""
    *layer, kind, suffix = name.split(".")  # blk.3.attn_q.weight, or output_norm.weight
    if not layer:
        return f"{_GLOBAL[kind]}.{suffix}"
    here = _WITHOUT_SUFFIX.get(f"{kind}.{suffix}") or f"{_IN_LAYER[kind]}.{suffix}"
    return f"model.layers.{layer[1]}.{here}"
