"""Named mixes as llama-quantize makes them: ``q4_k_m``, ``q3_k_l``, … give every tensor the type that it gives.

A mix is a default format and a few exceptions: values of attention and the down projections of some layers have more
bits.
Names are those of llama-quantize; the rules are those of llama.cpp's ``llama_tensor_get_type_impl`` without an imatrix.
``tests/quant/test_mixes_llamacpp.py`` compares all of them with llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from sprat.quant.formats import BlockFormat, get_format

__all__ = ["MIXES", "Mix", "ModelShape"]

_LAYER = re.compile(r"^blk\.(\d+)\.")
_MIXTRAL_EXPERTS = 8  # llama.cpp's rules for Mixtral apply to every model with as many experts
_LAYERS_OF_70B, _WIDE = 80, 4


class ModelShape(msgspec.Struct, frozen=True):
    """Dimensions of a model that the rules of a mix depend on.

    Attributes:
        n_layers: number of layers.
        queries_per_kv: query heads that share a head of keys and values; all of them with MLA.
        n_experts: routed experts of a layer; 0 without MoE.
    """

    n_layers: int
    queries_per_kv: int
    n_experts: int = 0


class _Layer(msgspec.Struct, frozen=True):
    index: int
    shape: ModelShape

    @property
    def n(self) -> int:
        return self.shape.n_layers

    @property
    def has_more_bits(self) -> bool:
        """The first and the last eighth of the layers, and every third in between."""
        eighth = self.n // 8
        return self.index < eighth or self.index >= 7 * self.n // 8 or (self.index - eighth) % 3 == 2


_Rule: TypeAlias = Callable[[_Layer], str | None]  # the format's name, or None for the default


def _always(name: str) -> _Rule:
    return lambda layer: name


def _in_first(part: int, name: str, otherwise: str | None = None) -> _Rule:
    """``name`` in the first ``1 / part`` of the layers, ``otherwise`` after them."""
    return lambda layer: name if layer.index < layer.n // part else otherwise


def _below(index: int, name: str, otherwise: str | None = None) -> _Rule:
    return lambda layer: name if layer.index < index else otherwise


def _more(name: str) -> _Rule:
    return lambda layer: name if layer.has_more_bits else None


def _shared(name: str, otherwise: str | None = None) -> _Rule:
    """``name`` if four or more query heads share a KV head, since the tensor is small then."""
    return lambda layer: name if layer.shape.queries_per_kv >= _WIDE else otherwise


class Mix(msgspec.Struct, frozen=True):
    """A mix of llama-quantize.

    Attributes:
        name: as llama-quantize spells it, in lower case.
        default: name of the format of all other matrices.
        file_type: ``general.file_type``.
        values: of the value projections.
        down: of the down projections.
        output: of attention's output projection.
        output_of_8: of the same in models with 8 experts; ``None`` for the default.
        embedding: of the token embedding, where it is not the output matrix too; ``None`` for the default.
    """

    name: str
    default: str
    file_type: int
    values: _Rule | None = None
    down: _Rule | None = None
    output: _Rule | None = None
    output_of_8: str | None = None
    embedding: str | None = None
    only_experts: bool = False  # the default is for three-dimensional tensors, Q8_0 for the others

    def format_of(self, tensor: str, shape: tuple[int, ...], model: ModelShape, head: str) -> BlockFormat:
        """The format of the matrix ``tensor``, before any fallback; ``head`` names the output matrix."""
        return get_format(self._name_of(tensor, shape, model, head))

    def _name_of(self, tensor: str, shape: tuple[int, ...], model: ModelShape, head: str) -> str:
        if tensor == head:
            return self._of_head(shape)
        if self.only_experts:
            return self.default if len(shape) > 2 and shape[0] > 1 else "Q8_0"
        if tensor == "token_embd.weight":
            return self.embedding or self.default
        found = _LAYER.match(tensor)
        layer = _Layer(int(found[1]) if found else 0, model)
        return self._of_layer(tensor, layer) or self.default

    def _of_head(self, shape: tuple[int, ...]) -> str:
        if self.only_experts or self.default == "Q8_0" or not get_format(self.default).divides(shape[-1]):
            return "Q8_0"
        return "Q6_K"

    def _of_layer(self, tensor: str, layer: _Layer) -> str | None:
        has_8 = layer.shape.n_experts == _MIXTRAL_EXPERTS
        if re.search(r"attn_(v|qkv|kv_b)\.weight", tensor):
            return "Q8_0" if has_8 else self._of_values(layer)
        if "attn_k.weight" in tensor:
            return "Q8_0" if has_8 else None
        if "ffn_down" in tensor:
            return self.down(layer) if self.down else None
        if "attn_output.weight" in tensor:
            return self.output_of_8 if has_8 else self.output(layer) if self.output else None
        return None

    def _of_values(self, layer: _Layer) -> str | None:
        found = (self.values(layer) if self.values else None) or self.default
        is_70b = layer.n == _LAYERS_OF_70B and layer.shape.queries_per_kv > 1
        return "Q5_K" if is_70b and found in ("Q3_K", "Q4_K") else found


_ALL = (
    Mix("q2_k", "Q2_K", 10, _shared("Q4_K", "Q3_K"), _always("Q3_K"), _always("Q3_K"), "Q5_K"),
    Mix("q3_k_s", "Q3_K", 11, output_of_8="Q5_K"),
    Mix("q3_k_m", "Q3_K", 12, _below(2, "Q5_K", "Q4_K"), _in_first(16, "Q5_K", "Q4_K"), _always("Q4_K"), "Q5_K"),
    Mix("q3_k_l", "Q3_K", 13, _always("Q5_K"), _always("Q5_K"), _always("Q5_K")),
    Mix("q4_k_s", "Q4_K", 14, _below(4, "Q5_K"), _in_first(8, "Q5_K"), output_of_8="Q5_K"),
    Mix("q4_k_m", "Q4_K", 15, _more("Q6_K"), _more("Q6_K"), output_of_8="Q5_K"),
    Mix("q5_k_s", "Q5_K", 16),
    Mix("q5_k_m", "Q5_K", 17, _more("Q6_K"), _more("Q6_K")),
    Mix("q6_k", "Q6_K", 18),
    Mix("iq4_nl", "IQ4_NL", 25, _shared("Q5_K"), _in_first(8, "Q5_K"), output_of_8="Q5_K"),
    Mix("iq4_xs", "IQ4_XS", 30, _shared("Q5_K"), _in_first(8, "Q5_K"), output_of_8="Q5_K"),
    Mix("q2_0", "Q2_0", 41, embedding="Q4_K"),
    Mix("mxfp4_moe", "MXFP4", 38, only_experts=True),
)
MIXES = {mix.name: mix for mix in _ALL}
"""All mixes, by name."""
