"""A :class:`~sprat.runtime.arch.spec.ModelSpec` as JSON, and back: how an ONNX model carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec

from sprat.errors import ConfigError
from sprat.runtime.arch.spec import FrequencyFactors, ModelSpec, RopeSpec, YarnScaling

__all__ = ["spec_from_json", "spec_to_json"]

Record = TypeVar("Record")


def spec_to_json(spec: ModelSpec) -> str:
    """The fields of a spec under their own names."""
    return msgspec.json.encode(spec).decode()


def spec_from_json(text: str, subject: str) -> ModelSpec:
    """Read what :func:`spec_to_json` wrote.

    Args:
        text: JSON.
        subject: what holds it, for messages.

    Raises:
        ConfigError: a field is missing, unknown or of another type, or the numbers contradict each other.
    """
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
        spec = _record(ModelSpec, fields, rope=_rope(fields.get("rope")))
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{subject}: its architecture cannot be read ({error!r}); export the model again") from error
    spec.validate()
    return spec


def _rope(fields: Any) -> RopeSpec:
    """The one record with a field of two kinds, which msgspec does not tell apart."""
    scaling = fields.get("scaling") if isinstance(fields, dict) else None
    if scaling is not None:
        scaling = msgspec.convert(scaling, FrequencyFactors if "factors" in scaling else YarnScaling)
    return _record(RopeSpec, msgspec.convert(fields, dict[str, Any]), scaling=scaling)


def _record(kind: type[Record], fields: Mapping[str, Any], **converted: Any) -> Record:
    """``kind`` with its fields converted to their types; those in ``converted`` are already."""
    types = get_type_hints(kind)
    values = {name: msgspec.convert(value, types[name]) for name, value in fields.items() if name not in converted}
    return kind(**values, **converted)
