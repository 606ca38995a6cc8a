"""The memory and the cost of a forward pass of a model, from its spec and the sizes of its tensors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sprat.devices.plan.footprint import AS_IT_IS, Footprint, FormatShare, LayerBytes, PassCost
from sprat.runtime.arch.attention import Storage
from sprat.runtime.arch.gguf_keys import keys_of_spec
from sprat.runtime.arch.model_shape import shape_of_keys
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors, is_routed_expert, tensor_role
from sprat.runtime.cache import entry_layout
from sprat.runtime.files.gguf_checks import TensorInfo
from sprat.runtime.files.model_file import ModelFile
from sprat.runtime.files.shape_checks import mtp_in_gguf
from sprat.runtime.memory.buffers import activation_bytes, native_buffer_bytes, program_bytes

if TYPE_CHECKING:
    from sprat.quant.recipe import Recipe

__all__ = [
    "DEFAULT_BATCH",
    "DEFAULT_CONTEXT",
    "PRESETS",
    "cache_bytes_per_token",
    "file_footprint",
    "footprint_of_sizes",
    "pass_cost",
    "planned_footprint",
    "planned_recipes",
    "resident_and_routed",
]

PRESETS = ("int8", "int4")  # best quality first; a plan takes the first that fits

DEFAULT_BATCH = 256  # prompt tokens of one forward pass

DEFAULT_CONTEXT = 4096  # tokens; models with a context of 163,840 would need more cache than a small device has

_LATENT_PROJECTIONS = frozenset({"attn_k_b", "attn_v_b"})  # counted in the cost of attention
_F16_BYTES = 2
_CALLS_OF_LAYER = 2  # kernel calls: attention, MLP or MoE
_CALLS_OF_MODEL = 2  # embeddings and logits


def planned_footprint(spec: ModelSpec, recipe: Recipe, *, context: int | None = None) -> Footprint:
    """The footprint that ``spec`` will have when it is quantized by ``recipe``.

    Args:
        spec: the model.
        recipe: the block format of each tensor.
        context: context length; by default the model's limit, at most :data:`DEFAULT_CONTEXT`.
    """
    formats = {name: recipe.choose(name, shape).format for name, shape in expected_tensors(spec).items()}
    sizes = {
        name: math.prod(shape[:-1]) * formats[name].row_bytes(shape[-1])
        for name, shape in expected_tensors(spec).items()
    }
    names = {name: format.name for name, format in formats.items()}
    return footprint_of_sizes(spec, sizes, names, quant=recipe.name, context=context)


def planned_recipes(spec: ModelSpec, quant: str | None = None, rules: Sequence[str] = ()) -> tuple[Recipe, ...]:
    """The recipes that a plan chooses from, best quality first: the one called ``quant``, or all :data:`PRESETS`.

    Raises:
        FormatError: unknown quantization, or invalid rule.
    """
    from sprat.quant.recipe import Recipe  # which a model that is loaded does not need

    names = PRESETS if quant is None else (quant,)
    model = shape_of_keys({"general.architecture": spec.architecture, **keys_of_spec(spec)})
    return tuple(
        Recipe.named(name, tied_embeddings=spec.tied_embeddings, model=model).with_rules(rules) for name in names
    )


def file_footprint(
    spec: ModelSpec, file: ModelFile, *, context: int | None = None, cache: Storage | None = None
) -> Footprint:
    """The footprint of a file without requantizing it; ``context`` is that of :func:`planned_footprint`."""
    mtp = mtp_in_gguf(file.tensors, spec)
    tensors = {name: info for name, info in file.tensors.items() if name not in mtp}
    sizes = {name: info.nbytes for name, info in tensors.items()}
    formats = {name: info.type_name for name, info in tensors.items() if isinstance(info, TensorInfo)}
    return footprint_of_sizes(spec, sizes, formats, quant=AS_IT_IS, context=context, cache=cache)


def footprint_of_sizes(
    spec: ModelSpec,
    sizes: Mapping[str, int],
    formats: Mapping[str, str],
    *,
    quant: str,
    context: int | None = None,
    cache: Storage | None = None,
) -> Footprint:
    """The footprint of a model whose tensors take ``sizes`` bytes.

    Args:
        spec: the model.
        sizes: canonical name -> packed bytes.
        formats: canonical name -> block format; empty where they are not known, as in an ONNX model.
        quant: name of the quantization.
        context: as for :func:`planned_footprint`.
        cache: storage of the KV cache; by default the native backend's.
    """
    cache = cache or spec.attention.storages[0]
    resident_bytes, routed_bytes = resident_and_routed(sizes)
    return Footprint(
        quant=quant,
        resident_bytes=resident_bytes,
        routed_bytes=routed_bytes,
        cache_bytes_per_token=cache_bytes_per_token(spec, cache),
        context=min(context or DEFAULT_CONTEXT, spec.max_context),
        buffer_bytes=native_buffer_bytes(spec, DEFAULT_BATCH) + program_bytes(spec.vocab_size),
        batch=DEFAULT_BATCH,
        activation_bytes=activation_bytes(spec),
        pass_cost=pass_cost(spec, sizes, formats, cache),
        cache=cache,
    )


def resident_and_routed(sizes: Mapping[str, int]) -> tuple[int, int]:
    """Bytes of the weights that every token reads, and of the routed experts, of ``sizes`` (name -> packed bytes)."""
    routed_bytes = sum(size for name, size in sizes.items() if is_routed_expert(name))
    return sum(sizes.values()) - routed_bytes, routed_bytes


def cache_bytes_per_token(spec: ModelSpec, cache: Storage) -> int:
    """Bytes of a token's KV entries, in all layers."""
    return spec.n_layers * sum(plane.n_heads * entry_layout(plane, cache).nbytes for plane in spec.attention.planes)


def pass_cost(spec: ModelSpec, sizes: Mapping[str, int], formats: Mapping[str, str], cache: Storage) -> PassCost:
    """The cost of a forward pass; the arguments are those of :func:`footprint_of_sizes`."""
    moe = spec.moe
    n_moe_layers = spec.n_layers - moe.n_dense_layers if moe else 0
    n_experts = n_moe_layers * moe.n_routed_experts if moe else 0
    dense = _dense_matrices(spec)
    routed = [name for name in sizes if is_routed_expert(name)]
    resident_bytes, routed_bytes = resident_and_routed(sizes)
    head = "token_embd.weight" if spec.tied_embeddings else "output.weight"
    head_bytes = sizes[head]
    embedding_bytes = 0 if spec.tied_embeddings else sizes["token_embd.weight"]
    return PassCost(
        dense_bytes=resident_bytes - head_bytes - embedding_bytes,
        dense_weights=sum(map(math.prod, dense.values())),
        dense_rows=sum(math.prod(shape[:-1]) for shape in dense.values()),
        head_bytes=head_bytes,
        head_weights=spec.vocab_size * spec.hidden_size,
        head_rows=spec.vocab_size,
        n_layers=spec.n_layers,
        attention=spec.attention.costs(),
        attention_values=spec.n_layers * (spec.attention.q_width + spec.attention.output_width),
        cache_bytes_per_token=cache_bytes_per_token(spec, cache),
        n_calls=_CALLS_OF_MODEL + _CALLS_OF_LAYER * spec.n_layers,
        expert_bytes=routed_bytes // n_experts if n_experts else 0,
        expert_weights=3 * moe.expert_width * spec.hidden_size if moe else 0,
        expert_rows=2 * moe.expert_width + spec.hidden_size if moe else 0,
        n_moe_layers=n_moe_layers,
        n_experts=moe.n_routed_experts if moe else 0,
        n_experts_per_token=moe.n_experts_per_token if moe else 0,
        f16_cache_bytes_per_token=_F16_BYTES * spec.cache_elements_per_token,
        layers=_layer_bytes(spec.n_layers, sizes),
        n_heads=spec.attention.n_heads,
        dense_formats=_shares(spec, sizes, formats, dense),
        head_formats=_shares(spec, sizes, formats, [head]),
        expert_formats=_shares(spec, sizes, formats, routed),
    )


def _shares(
    spec: ModelSpec, sizes: Mapping[str, int], formats: Mapping[str, str], names: Iterable[str]
) -> tuple[FormatShare, ...]:
    """The formats of the tensors ``names``."""
    shapes, nbytes, weights = expected_tensors(spec), Counter[str](), Counter[str]()
    for name in names if formats else ():
        nbytes[formats[name]] += sizes[name]
        weights[formats[name]] += math.prod(shapes[name])
    all_bytes, all_weights = nbytes.total(), weights.total()
    return tuple(FormatShare(each, nbytes[each] / all_bytes, weights[each] / all_weights) for each in nbytes)


def _layer_bytes(n_layers: int, sizes: Mapping[str, int]) -> tuple[LayerBytes, ...]:
    dense, experts = [0] * n_layers, [0] * n_layers
    for name, size in sizes.items():
        if name.startswith("blk."):
            where = experts if is_routed_expert(name) else dense
            where[int(name.split(".", 2)[1])] += size
    return tuple(map(LayerBytes, dense, experts))


def _dense_matrices(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Shapes of the matrices that every token uses, without the head and those counted in attention."""
    apart = {"token_embd", "output", *_LATENT_PROJECTIONS}
    return {
        name: shape
        for name, shape in expected_tensors(spec).items()
        if len(shape) > 1 and not is_routed_expert(name) and tensor_role(name) not in apart
    }
