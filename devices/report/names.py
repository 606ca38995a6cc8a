"""Names of models and devices in a report: unique, and short enough for a phone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from sprat.devices.bench.results import Label, Measurement
from sprat.devices.plan.footprint import AS_IT_IS
from sprat.devices.plan.plan import PlanSummary
from sprat.devices.profile import DeviceProfile, load_profile
from sprat.errors import DeviceError

__all__ = [
    "ModelName",
    "ModelNames",
    "device_titles",
    "known_profile",
    "machine_title",
    "place_of",
    "weight_bytes",
    "write_tokens",
]

_UNNAMED = "this machine"
_MAX_TITLE = 30  # characters; a profile with a longer title is shown by its name
_TRADEMARKS = re.compile(r"\((?:R|TM)\)|\bCPU\b|@ .*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model and its quantization: ``deepseek-v2-lite``, ``int4``."""

    name: str
    quant: str

    @property
    def title(self) -> str:
        """Name and quantization, unless the name contains it: ``deepseek-v2-lite int4``."""
        return f"{self.name} {self.quant}" if self.quant and self.quant.lower() not in self.name.lower() else self.name


class ModelNames:
    """Names of models.

    A prediction gets the name of the model that ran with exactly the same size of weights, and so do predictions of
    that model in other quantizations.

    If a report has one quantization of a model, it is part of the title; if it has several, it is part of each row.
    """

    def __init__(self, records: Iterable[Measurement], plans: Iterable[PlanSummary]) -> None:
        records, plans = list(records), list(plans)
        ran = [each for each in records if each.label is not Label.PREDICTED]
        self._ran = {each.model.size_bytes: _own_name(each) for each in ran}
        predicted = [(each.model.size_bytes, _own_name(each)) for each in records if each.label is Label.PREDICTED]
        predicted += [(weight_bytes(plan), _model_name(plan.model, plan.quant)) for plan in plans]
        self._ran_as = {own.name: self._ran[size].name for size, own in predicted if size in self._ran}
        self._quants: dict[str, set[str]] = defaultdict(set)
        for found in [*map(self.of_record, records), *map(self.of_plan, plans)]:
            self._quants[found.name].add(found.quant)

    def of_record(self, record: Measurement) -> ModelName:
        """The model of a record."""
        own = _own_name(record)
        return self._predicted(record.model.size_bytes, own) if record.label is Label.PREDICTED else own

    def of_plan(self, plan: PlanSummary) -> ModelName:
        """The model of a plan."""
        return self._predicted(weight_bytes(plan), _model_name(plan.model, plan.quant))

    def _predicted(self, size_bytes: int, own: ModelName) -> ModelName:
        return self._ran.get(size_bytes) or ModelName(self._ran_as.get(own.name, own.name), own.quant)

    def title(self, model: ModelName) -> str:
        """Title of a chart of ``model``."""
        return model.title if len(self._quants[model.name]) == 1 else model.name

    def row(self, device: str, model: ModelName) -> str:
        """Name of a row of ``model`` on ``device``."""
        return f"{device}, {model.quant}" if len(self._quants[model.name]) > 1 and model.quant else device


def weight_bytes(plan: PlanSummary) -> int:
    """Bytes of all weights, streamed experts included."""
    others = sum(part.size_bytes for part in plan.memory_map if part.name in {"cache", "buffers"})
    return plan.needed_bytes - others


def device_titles(places: Iterable[str]) -> dict[str, str]:
    """Title of each place; places with the same title keep their names."""
    titles = {place: _title(place) for place in places}
    counts = Counter(titles.values())
    return {place: title if counts[title] == 1 else place for place, title in titles.items()}


def machine_title(processor: str) -> str:
    """Name of a CPU without trademarks and clock: ``Intel Xeon Platinum 8481C``."""
    return " ".join(_TRADEMARKS.sub("", processor).split()) or processor


def place_of(record: Measurement) -> str:
    """Key of the device of a record: the profile's name, else the CPU's."""
    return record.device or (record.machine.processor if record.machine else _UNNAMED)


def known_profile(name: str | None) -> DeviceProfile | None:
    """The profile called ``name``; ``None`` if there is none."""
    try:
        return load_profile(name) if name else None
    except DeviceError:
        return None


def write_tokens(count: float) -> str:
    """A number of tokens: ``512``, ``4k``, ``128k``."""
    return f"{count / 1024:g}k" if count >= 1024 and count % 512 == 0 else f"{count:,.0f}"


def _own_name(record: Measurement) -> ModelName:
    """The name, with the number of layers if a preset was cut to some of them."""
    layers = record.settings.get("layers")
    return _model_name(record.model.name + (f", {layers} layers" if layers else ""), record.model.quant)


def _model_name(name: str, quant: str) -> ModelName:
    """The name without folders, and the quantization unless the file decides it."""
    name = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or name
    return ModelName(name, "" if quant == AS_IT_IS else quant)


def _title(place: str) -> str:
    profile = known_profile(place)
    if profile is None:
        return machine_title(place)
    title = re.split(r": | \(", profile.title)[0]
    return title if len(title) <= _MAX_TITLE else profile.name
