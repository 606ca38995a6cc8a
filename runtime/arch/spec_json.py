"""Convert a :class:`~sprat.runtime.arch.spec.ModelSpec` to JSON and back, for ONNX models and manifests.

The dimensions of grouped attention are top-level fields; ``mla`` has those of latent attention, or ``null``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec

from sprat.errors import ConfigError
from sprat.runtime.arch.attention import AttentionSpec, GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import FrequencyFactors, LinearScaling, RopeScaling, RopeSpec, YarnScaling
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["spec_fields", "spec_from_json", "spec_to_json"]

Record = TypeVar("Record")

_GROUPED_FIELDS = ("n_heads", "n_kv_heads", "head_dim", "attention_bias", "qk_norm")
_MAY_BE_ZERO = frozenset({"n_shared_experts", "n_dense_layers"})
_ORDER = (
    "architecture",
    "vocab_size",
    "hidden_size",
    "n_layers",
    *_GROUPED_FIELDS[:3],
    "intermediate_size",
    "rms_norm_eps",
    "max_context",
    "rope",
    "tied_embeddings",
    "attention_bias",
    "qk_norm",
    "mla",
    "moe",
)


def spec_fields(spec: ModelSpec) -> dict[str, Any]:
    """A spec as a dict of JSON values."""
    fields = {name: msgspec.to_builtins(getattr(spec, name)) for name in _ORDER if hasattr(spec, name)}
    fields |= spec.attention.json_fields()
    return {name: fields[name] for name in _ORDER if name in fields}


def spec_to_json(spec: ModelSpec) -> str:
    """A spec as JSON text."""
    return msgspec.json.encode(spec_fields(spec)).decode()


def spec_from_json(text: str, subject: str) -> ModelSpec:
    """Read the JSON of :func:`spec_to_json`.

    Args:
        text: JSON.
        subject: the file or key that it comes from, for messages.

    Raises:
        ConfigError: a field is missing, unknown or of another type, or the dimensions contradict each other.
    """
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
        _check_sizes(fields)
        common = {name: value for name, value in fields.items() if name not in {*_GROUPED_FIELDS, "mla"}}
        moe = None if fields.get("moe") is None else msgspec.convert(fields["moe"], MoESpec)
        spec = _record(ModelSpec, common, attention=_attention(fields), rope=_rope(fields.get("rope")), moe=moe)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{subject}: its architecture cannot be read ({error!r}); export the model again") from error
    spec.validate()
    return spec


def _check_sizes(fields: Mapping[str, Any]) -> None:
    """Check that no size is zero or negative, in any record; ValueError names the first that is."""
    for name, value in fields.items():
        if isinstance(value, dict):
            _check_sizes(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value < (0 if name in _MAY_BE_ZERO else 1):
            raise ValueError(f"{name} is {value}, expected at least {0 if name in _MAY_BE_ZERO else 1}")


def _attention(fields: Mapping[str, Any]) -> AttentionSpec:
    if fields["mla"] is not None:
        return msgspec.convert({"n_heads": fields["n_heads"], **fields["mla"]}, LatentAttentionSpec)
    grouped = {name: fields[name] for name in _GROUPED_FIELDS if name in fields}
    grouped["bias"] = grouped.pop("attention_bias")
    return msgspec.convert(grouped, GroupedAttentionSpec)


def _rope(fields: Any) -> RopeSpec:
    """RoPE: ``scaling`` is one of three records, which msgspec cannot tell apart."""
    scaling = fields.get("scaling") if isinstance(fields, dict) else None
    if scaling is not None:
        scaling = msgspec.convert(scaling, _scaling_kind(scaling))
    return _record(RopeSpec, msgspec.convert(fields, dict[str, Any]), scaling=scaling)


def _scaling_kind(scaling: Collection[str]) -> type[RopeScaling]:
    if "factors" in scaling:
        return FrequencyFactors
    return YarnScaling if "original_max_position_embeddings" in scaling else LinearScaling


def _record(kind: type[Record], fields: Mapping[str, Any], **converted: Any) -> Record:
    """A ``kind`` with its fields converted to their types, except those in ``converted``, which are."""
    types = get_type_hints(kind)
    values = {name: msgspec.convert(value, types[name]) for name, value in fields.items() if name not in converted}
    return kind(**values, **converted)
