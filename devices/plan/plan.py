"""Whether a model fits a device, what goes where in its memory, and how fast it will be.

:class:`Plan` is the verdict on one footprint and one device; :class:`PlanSummary` is the same as plain numbers, for
``sprat plan --json`` and for reports. Its field names are stable.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

from sprat.devices.plan.efficiency import load_calibration
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.gpu import GraphicsFit, fit_graphics
from sprat.devices.plan.predict import PREFILL_CHUNK, PassTime, Predictor, device_rates
from sprat.devices.profile import DeviceProfile, Storage

__all__ = [
    "DEFAULT_PROMPT",
    "PLAN_SCHEMA",
    "MemoryPart",
    "Plan",
    "PlanSummary",
    "Prediction",
    "RunSettings",
    "Verdict",
]

DEFAULT_PROMPT = 512  # tokens, as llama-bench's pp512
PLAN_SCHEMA = 1
"""Version of :class:`PlanSummary`; a file of another version is refused, not guessed at."""


_BATCHES = (512, 256, 128, 64, 32)  # mixtures gain most from many tokens: each expert is read once for all of them
_PATIENCE_S = 2.0  # for a pass: cancel and timeout take effect between passes
_MOST_SLOWER = 1.25  # a prompt in such passes, against its fastest way


class Verdict(enum.StrEnum):
    """Whether a model runs on a device."""

    FITS = "fits"
    STREAMED = "fits with experts streamed"
    TOO_LARGE = "does not fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What the engine may choose.

    Attributes:
        n_threads: one per core that is worth it.
        context: tokens that prompt and answer may hold together.
        batch: tokens of a prompt in one pass.
        cache: what a number of the cache is kept as.
    """

    n_threads: int
    context: int
    batch: int
    cache: str


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One line of a memory map."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How fast it will be; predicted, never measured. Each figure may be off by ``relative_error`` either way.

    Attributes:
        prompt_tokens: of the prompt that the first token waits for.
        ttft_s: seconds to the first token, weights in memory.
        load_s: seconds to read the weights from storage, which the first answer after a start waits for as well.
        prefill_tokens_per_s: of that prompt.
        decode_tokens_per_s: behind an empty context.
        decode_tokens_per_s_at_context: behind a full one.
        relative_error: 0.3 for 30 %.
        prefill_limit: what the prompt waits for.
        decode_limit: what a token waits for.
    """

    prompt_tokens: int
    ttft_s: float
    load_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    decode_tokens_per_s_at_context: float
    relative_error: float
    prefill_limit: str
    decode_limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """A plan as plain numbers: one line of ``sprat plan --json``. All speeds are predicted."""

    schema: int = PLAN_SCHEMA
    model: str
    device: str
    title: str  # the device's
    quant: str
    verdict: Verdict
    context: int
    usable_bytes: int
    needed_bytes: int
    missing_bytes: int  # 0 when it fits
    held_experts_share: float  # of the experts' bytes, in memory
    memory_map: tuple[MemoryPart, ...]
    prediction: Prediction | None
    graphics: GraphicsFit | None
    settings: RunSettings


@dataclass(frozen=True)
class Plan:
    """One footprint on one device.

    Args:
        profile: the device.
        footprint: of the model.
        usable_bytes: memory that it may take.
        prompt_tokens: of the prompt that the predicted first token waits for.
    """

    profile: DeviceProfile
    footprint: Footprint
    usable_bytes: int
    prompt_tokens: int = DEFAULT_PROMPT

    @property
    def spare_bytes(self) -> int:
        """What is left when everything is loaded; negative when it does not fit whole."""
        return self.usable_bytes - self.footprint.total_bytes

    @property
    def fits(self) -> bool:
        """Whether weights, a full cache and buffers fit together."""
        return self.verdict is Verdict.FITS

    @property
    def runs(self) -> bool:
        """Whether it fits, whole or with experts streamed."""
        return self.verdict is not Verdict.TOO_LARGE

    @property
    def verdict(self) -> Verdict:
        """Whether it fits."""
        if self.missing_bytes:
            return Verdict.TOO_LARGE
        return Verdict.FITS if self.spare_bytes >= 0 else Verdict.STREAMED

    @property
    def missing_bytes(self) -> int:
        """By how much it does not fit, in memory (experts streamed) or on storage; 0 when it does."""
        lacking = self.footprint.least_bytes - self.usable_bytes
        if self.storage is None:
            roomiest = max(medium.capacity_bytes.value for medium in self.profile.storage if medium.capacity_bytes)
            lacking = max(lacking, self.footprint.weight_bytes - int(roomiest))
        return max(lacking, 0)

    @property
    def storage(self) -> Storage | None:
        """The fastest medium with room for the weights; ``None`` when no medium has."""
        media = [
            medium
            for medium in self.profile.storage
            if not medium.capacity_bytes or medium.capacity_bytes.value >= self.footprint.weight_bytes
        ]
        return max(media, key=lambda medium: medium.sequential_mbps.value, default=None)

    @property
    def held_experts_bytes(self) -> int:
        """Bytes of experts that stay in memory."""
        routed_bytes = self.footprint.routed_bytes
        return max(0, min(routed_bytes, self.spare_bytes + routed_bytes))

    @property
    def held_experts_share(self) -> float:
        """Share of the experts' bytes that stay in memory."""
        routed_bytes = self.footprint.routed_bytes
        return self.held_experts_bytes / routed_bytes if routed_bytes else 1.0

    def memory_map(self) -> tuple[MemoryPart, ...]:
        """All of the device's memory, part by part; an overcommitted one has no spare part."""
        footprint = self.footprint
        experts = self.held_experts_bytes if self.runs else footprint.routed_bytes
        parts = (
            MemoryPart("resident weights", footprint.resident_bytes),
            MemoryPart("experts", experts),
            MemoryPart("cache", footprint.cache_bytes),
            MemoryPart("buffers", footprint.buffer_bytes),
            MemoryPart("reserve", int(self.profile.memory.total_bytes.value) - self.usable_bytes),
            MemoryPart("spare", max(self.spare_bytes, 0)),
        )
        return tuple(part for part in parts if part.size_bytes > 0)

    @cached_property
    def predictor(self) -> Predictor | None:
        """Times of single passes; ``None`` when it does not fit, or its work is not known."""
        if self.footprint.work is None or not self.runs or self.storage is None:
            return None
        calibration = load_calibration()
        rates = device_rates(self.profile, calibration, self.storage)
        return Predictor(self.footprint.work, rates, calibration, self.held_experts_share)

    @property
    def graphics(self) -> GraphicsFit | None:
        """What the device's graphics processor could do; ``None`` where it has none."""
        accelerator = self.profile.accelerator
        return fit_graphics(accelerator, self.footprint) if accelerator else None

    @property
    def settings(self) -> RunSettings:
        """How to run it."""
        return RunSettings(
            n_threads=self.profile.n_threads,
            context=self.footprint.context,
            batch=_prefill_batch(self.predictor) if self.predictor else PREFILL_CHUNK,
            cache=self.footprint.cache,
        )

    @cached_property
    def prediction(self) -> Prediction | None:
        """How fast it will be; ``None`` when it does not fit, or its work is not known."""
        predictor = self.predictor
        if predictor is None:
            return None
        calibration, rates = predictor.calibration, predictor.rates
        prompt_tokens = min(self.prompt_tokens, self.footprint.context)
        prefill, decode = predictor.prefill(prompt_tokens, batch=self.settings.batch), predictor.decode(0)
        return Prediction(
            prompt_tokens=prompt_tokens,
            ttft_s=prefill.total_s,
            load_s=(self.footprint.resident_bytes + self.held_experts_bytes) / rates.storage_bytes,
            prefill_tokens_per_s=prompt_tokens / prefill.total_s,
            decode_tokens_per_s=_per_second(decode),
            decode_tokens_per_s_at_context=_per_second(predictor.decode(self.footprint.context)),
            relative_error=calibration.errors.of(rates.basis),
            prefill_limit=prefill.limit,
            decode_limit=decode.limit,
        )

    def summary(self, model: str) -> PlanSummary:
        """The plan as plain numbers; ``model`` is what the user calls it."""
        footprint = self.footprint
        return PlanSummary(
            model=model,
            device=self.profile.name,
            title=self.profile.title,
            quant=footprint.quant,
            verdict=self.verdict,
            context=footprint.context,
            usable_bytes=self.usable_bytes,
            needed_bytes=footprint.total_bytes,
            missing_bytes=self.missing_bytes,
            held_experts_share=self.held_experts_share,
            memory_map=self.memory_map(),
            prediction=self.prediction,
            graphics=self.graphics,
            settings=self.settings,
        )


def _per_second(time: PassTime) -> float:
    return 1 / time.total_s


def _prefill_batch(predictor: Predictor) -> int:
    """Tokens of a prompt whose pass is predicted to end before a user who cancels loses patience.

    Where experts come from storage, every pass reads nearly all of them, so that only few and long ones make sense.
    Elsewhere, too, passes are not cut so short that the whole prompt takes much longer.
    """
    if predictor.held < 1:
        return _BATCHES[0]
    times = {size: predictor.prefill(size).total_s for size in _BATCHES}
    fastest = min(seconds / size for size, seconds in times.items())
    bearable = [size for size, seconds in times.items() if seconds / size <= _MOST_SLOWER * fastest]
    return next((size for size in bearable if times[size] <= _PATIENCE_S), bearable[-1])
