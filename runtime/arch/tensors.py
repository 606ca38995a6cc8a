"""The tensors of a model: canonical name -> shape, in the order of the forward pass.

The names are GGUF's (llama.cpp's ``LLM_TENSOR_NAMES``); shapes are in C order, ``(out, in)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sprat.runtime.arch.attention.spec import NamedShape
from sprat.runtime.arch.moe import mlp_tensors
from sprat.runtime.arch.rope import FrequencyFactors
from sprat.runtime.arch.spec import ModelSpec

__all__ = [
    "ROPE_FREQS",
    "expected_tensors",
    "has_experts",
    "is_optional_mtp",
    "is_routed_expert",
    "mtp_tensors",
    "tensor_role",
]

ROPE_FREQS = "rope_freqs.weight"  # divisors of the RoPE frequencies; computed from the config of a checkpoint
_OPTIONAL_MTP = frozenset({"embed_tokens", "shared_head_head", "shared_head_norm"})  # else those of the model


def expected_tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """All tensors of a model of ``spec``, and no others.

    Returns:
        Canonical name -> shape. ``output.weight`` is absent if the embeddings are tied, :data:`ROPE_FREQS` is present
        if the spec has :class:`~sprat.runtime.arch.rope.FrequencyFactors`.
    """
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (spec.vocab_size, spec.hidden_size)}
    if isinstance(spec.rope.scaling, FrequencyFactors):
        tensors[ROPE_FREQS] = (spec.rope.dim // 2,)
    for layer in range(spec.n_layers):
        tensors.update((f"blk.{layer}.{name}", shape) for name, shape in _layer(spec, layer))
    tensors["output_norm.weight"] = (spec.hidden_size,)
    if not spec.tied_embeddings:
        tensors["output.weight"] = (spec.vocab_size, spec.hidden_size)
    return tensors


def mtp_tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The tensors of the layers of multi-token prediction (arXiv 2412.19437, section 2.2), which come after the others.

    A file may lack those that :func:`is_optional_mtp` names: llama.cpp then takes the model's own.
    """
    hidden, vocabulary = spec.hidden_size, (spec.vocab_size, spec.hidden_size)
    own = {
        "eh_proj": (hidden, 2 * hidden),
        "enorm": (hidden,),
        "hnorm": (hidden,),
        "embed_tokens": vocabulary,
        "shared_head_head": vocabulary,
        "shared_head_norm": (hidden,),
    }
    tensors: dict[str, tuple[int, ...]] = {}
    for layer in range(spec.n_layers, spec.n_layers + spec.n_mtp_layers):
        tensors.update((f"blk.{layer}.{name}", shape) for name, shape in _layer(spec, layer))
        tensors.update((f"blk.{layer}.nextn.{name}.weight", shape) for name, shape in own.items())
    return tensors


def is_optional_mtp(name: str) -> bool:
    """Whether a tensor of :func:`mtp_tensors` may be missing.

    Example:
        >>> is_optional_mtp("blk.47.nextn.shared_head_norm.weight"), is_optional_mtp("blk.47.nextn.eh_proj.weight")
        (True, False)
    """
    return tensor_role(name).removeprefix("nextn.") in _OPTIONAL_MTP


def tensor_role(name: str) -> str:
    """The name of a tensor without its layer.

    Example:
        >>> tensor_role("blk.3.ffn_down_exps.weight")
        'ffn_down_exps'
    """
    return re.sub(r"^blk\.\d+\.|\.weight$", "", name)


def is_routed_expert(name: str) -> bool:
    """Whether a tensor has the weights of routed experts.

    Example:
        >>> is_routed_expert("blk.3.ffn_down_exps.weight"), is_routed_expert("blk.3.ffn_down_shexp.weight")
        (True, False)
    """
    return tensor_role(name).partition(".")[0].endswith("_exps")


def has_experts(name: str) -> bool:
    """Whether the first axis of a tensor is the routed experts: their weights, the router and its biases.

    Example:
        >>> has_experts("blk.3.ffn_gate_inp.weight"), has_experts("blk.3.ffn_gate_shexp.weight")
        (True, False)
    """
    return is_routed_expert(name) or tensor_role(name) in {"ffn_gate_inp", "exp_probs_b.bias"}


def _layer(spec: ModelSpec, layer: int) -> Iterator[NamedShape]:
    yield "attn_norm.weight", (spec.hidden_size,)
    yield from spec.attention.tensors(spec.hidden_size)
    yield "ffn_norm.weight", (spec.hidden_size,)
    if spec.moe and spec.is_moe_layer(layer):
        yield from spec.moe.tensors(spec.hidden_size)
    else:
        yield from mlp_tensors("", spec.intermediate_size, spec.hidden_size)
