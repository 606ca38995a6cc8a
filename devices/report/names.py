"""What models and devices are called in a report: once each, and short enough for a phone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from sprat.devices.plan import PlanSummary
from sprat.devices.profile import DeviceProfile, load_profile
from sprat.devices.results import Label, Measurement
from sprat.errors import DeviceError

__all__ = ["ModelNames", "device_titles", "known_profile", "place_of", "weight_bytes", "write_tokens"]

_AS_IT_IS = "as it is"  # what a plan calls the quantization of a file
_UNNAMED = "this machine"
_LONG_TITLE = 30  # letters; longer ones give way to the profile's name
_TRADEMARKS = re.compile(r"\((?:R|TM)\)|\bCPU\b|@ .*$", re.IGNORECASE)


class ModelNames:
    """Names of models: a prediction takes that of the model that ran with just as many bytes of weights."""

    def __init__(self, records: Iterable[Measurement]) -> None:
        ran = [record.model for record in records if record.label is not Label.PREDICTED]
        self._ran = {model.size_bytes: _full_name(model.name, model.quant) for model in ran}

    def of_record(self, record: Measurement) -> str:
        """The name of what the record is about."""
        own = _full_name(record.model.name, record.model.quant)
        return self._ran.get(record.model.size_bytes, own) if record.label is Label.PREDICTED else own

    def of_plan(self, plan: PlanSummary) -> str:
        """The name of what the plan is about."""
        return self._ran.get(weight_bytes(plan), _full_name(plan.model, plan.quant))


def weight_bytes(plan: PlanSummary) -> int:
    """Bytes of all weights, those left in storage included."""
    others = sum(part.size_bytes for part in plan.memory_map if part.name in {"cache", "buffers"})
    return plan.needed_bytes - others


def device_titles(places: Iterable[str]) -> dict[str, str]:
    """A readable name for each place; where two would read the same, they keep their own."""
    titles = {place: _title(place) for place in places}
    counts = Counter(titles.values())
    return {place: title if counts[title] == 1 else place for place, title in titles.items()}


def place_of(record: Measurement) -> str:
    """What tells devices apart: the profile's name, else the processor."""
    return record.device or (record.machine.processor if record.machine else _UNNAMED)


def known_profile(name: str | None) -> DeviceProfile | None:
    """The profile called ``name``; ``None`` where this machine has none of that name."""
    try:
        return load_profile(name) if name else None
    except DeviceError:
        return None


def write_tokens(count: float) -> str:
    """A number of tokens as people in the field write it: ``512``, ``4k``, ``128k``."""
    return f"{count / 1024:g}k" if count >= 1024 and count % 512 == 0 else f"{count:,.0f}"


def _full_name(name: str, quant: str) -> str:
    """The name, without folders, and the quantization, unless it is in the name."""
    name = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or name
    return name if quant == _AS_IT_IS or quant.lower() in name.lower() else f"{name} {quant}"


def _title(place: str) -> str:
    profile = known_profile(place)
    if profile is None:
        return " ".join(_TRADEMARKS.sub("", place).split()) or place
    title = re.split(r": | \(", profile.title)[0]
    return title if len(title) <= _LONG_TITLE else profile.name
