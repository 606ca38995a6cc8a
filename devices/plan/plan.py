"""Whether a model fits a device, its memory map, and its predicted speed.

:class:`Plan` is the verdict for one footprint on one device; :class:`PlanSummary` holds its values, for
``sprat plan --json`` and for reports. The field names of the summary are stable.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sprat.devices.plan.counted import load_counted
from sprat.devices.plan.efficiency import load_efficiency
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.gpu import GPUFit, GPUPlan, fit_gpu, plan_gpu
from sprat.devices.plan.predict import PREFILL_CHUNK, PassTime, Predictor, device_rates
from sprat.devices.profile import DeviceProfile, Storage

__all__ = [
    "BATCHES",
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
"""Version of :class:`PlanSummary`; a file of another version is an error."""

BATCHES = (512, 256, 128, 64, 32)  # long passes help MoE models most: each expert is read once for all tokens
_MAX_PASS_S = 2.0  # cancel and timeout take effect between passes
_MAX_SLOWDOWN = 1.25  # of a whole prompt in shorter passes


class Verdict(enum.StrEnum):
    """Whether a model runs on a device."""

    FITS = "fits"
    STREAMED = "fits with experts streamed"
    TOO_LARGE = "does not fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Settings to run the model with.

    Attributes:
        n_threads: one per fast core.
        context: context length in tokens.
        batch: tokens of a prompt per pass.
        cache: format of the KV cache.
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
    """Predicted speeds and times, each plus or minus ``relative_error``; nothing is measured.

    Attributes:
        prompt_tokens: length of the prompt.
        ttft_s: seconds to the first token, with weights in memory.
        load_s: seconds to read the weights from storage, which the first prompt after a start also waits for.
        prefill_tokens_per_s: for this prompt.
        decode_tokens_per_s: at depth 0.
        decode_tokens_per_s_at_context: with a full context.
        relative_error: 0.3 for 30 %.
        prefill_limit: resource that limits prefill.
        decode_limit: resource that limits decode.
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
    """The values of a plan: one line of ``sprat plan --json``. All speeds are predicted."""

    schema: int = PLAN_SCHEMA
    model: str
    device: str
    title: str  # of the device
    quant: str
    verdict: Verdict
    context: int
    usable_bytes: int
    needed_bytes: int
    missing_bytes: int  # 0 when it fits
    held_experts_share: float  # share of the routed experts' bytes that stay in memory
    memory_map: tuple[MemoryPart, ...]
    prediction: Prediction | None
    graphics: GPUFit | None
    settings: RunSettings
    missing_from: str | None = None  # "memory" or "storage"; None when it fits
    file_bytes: int = 0  # all weights on storage; 0 in files of earlier versions
    mix: PlanSummary | None = None  # a mix of formats that stays wholly in memory, where this does not
    gpu: GPUPlan | None = None  # placements on the GPU; None without one, and in files of earlier versions


@dataclass(frozen=True)
class Plan:
    """Verdict for one footprint on one device.

    Args:
        profile: the device.
        footprint: of the model.
        usable_bytes: memory that the model may use.
        prompt_tokens: length of the prompt for which the time to first token is predicted.
    """

    profile: DeviceProfile
    footprint: Footprint
    usable_bytes: int
    prompt_tokens: int = DEFAULT_PROMPT

    @property
    def spare_bytes(self) -> int:
        """Memory left when everything is loaded; negative when experts must be streamed or it does not fit."""
        return self.usable_bytes - self.footprint.total_bytes

    def index_in(self, footprints: Sequence[Footprint]) -> int:
        """Index of the plan's footprint in ``footprints``, from which it was chosen; its batch may be shorter."""
        return next(i for i, each in enumerate(footprints) if each.of_batch(self.footprint.batch) == self.footprint)

    @property
    def fits(self) -> bool:
        """Whether weights, a full KV cache and buffers fit."""
        return self.verdict is Verdict.FITS

    @property
    def runs(self) -> bool:
        """Whether it fits, if need be with experts streamed."""
        return self.verdict is not Verdict.TOO_LARGE

    @property
    def verdict(self) -> Verdict:
        """Whether it fits, fits with experts streamed, or does not fit."""
        if self.missing_bytes:
            return Verdict.TOO_LARGE
        return Verdict.FITS if self.spare_bytes >= 0 else Verdict.STREAMED

    @property
    def missing_bytes(self) -> int:
        """Bytes that are missing in memory (with experts streamed) or in storage; 0 when it fits."""
        return max(self._missing_memory, self._missing_storage)

    @property
    def missing_from(self) -> str | None:
        """Place where :attr:`missing_bytes` are missing, ``"memory"`` or ``"storage"``; ``None`` when it fits."""
        if not self.missing_bytes:
            return None
        return "storage" if self._missing_storage > self._missing_memory else "memory"

    @property
    def _missing_memory(self) -> int:
        return max(self.footprint.least_bytes - self.usable_bytes, 0)

    @property
    def _missing_storage(self) -> int:
        if self.storage is not None:
            return 0
        largest = max(each.capacity_bytes.value for each in self.profile.storage if each.capacity_bytes)
        return self.footprint.weight_bytes - int(largest)

    @property
    def storage(self) -> Storage | None:
        """The fastest storage device that can hold the weights; ``None`` if there is none."""
        large_enough = [
            each
            for each in self.profile.storage
            if not each.capacity_bytes or each.capacity_bytes.value >= self.footprint.weight_bytes
        ]
        return max(large_enough, key=lambda each: each.sequential_mbps.value, default=None)

    @property
    def held_experts_bytes(self) -> int:
        """Bytes of routed experts that stay in memory."""
        routed_bytes = self.footprint.routed_bytes
        return max(0, min(routed_bytes, self.spare_bytes + routed_bytes))

    @property
    def held_experts_share(self) -> float:
        """Share of the routed experts' bytes that stay in memory."""
        routed_bytes = self.footprint.routed_bytes
        return self.held_experts_bytes / routed_bytes if routed_bytes else 1.0

    def memory_map(self) -> tuple[MemoryPart, ...]:
        """All of the device's memory by use; there is no ``spare`` part when it does not fit."""
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
        """Times of single passes; ``None`` when the model does not fit or the cost of a pass is not known."""
        return self._predictor(self.held_experts_share) if self.runs else None

    def _predictor(self, resident_share: float) -> Predictor | None:
        if self.footprint.pass_cost is None or self.storage is None:
            return None
        efficiency = load_efficiency()
        rates = device_rates(self.profile, efficiency, self.storage)
        cycles = load_counted().relative_cycles(self.profile.fast_cores)
        return Predictor(self.footprint.pass_cost, rates, efficiency, resident_share, cycles)

    @property
    def graphics(self) -> GPUFit | None:
        """The model in the memory of the device's GPU; ``None`` without a GPU."""
        accelerator = self.profile.accelerator
        return fit_gpu(accelerator, self.footprint) if accelerator else None

    def gpu(self, *, past: int = 0, card_bytes: int | None = None) -> GPUPlan | None:
        """Placements on the device's GPU for decoding at depth ``past``, with ``card_bytes`` of its memory.

        ``None`` without a GPU, or when the cost of a pass is not known. Nothing is streamed: what is not on the card
        must fit into memory, also of a model that does not fit without the card.
        """
        accelerator, cost = self.profile.accelerator, self.footprint.pass_cost
        predictor = self._predictor(1.0)
        if accelerator is None or predictor is None or cost is None or not cost.layers:
            return None
        on_cpu = predictor.decode_parts(past)
        return plan_gpu(accelerator, self.footprint, on_cpu, self.usable_bytes, past=past, card_bytes=card_bytes)

    @property
    def settings(self) -> RunSettings:
        """Settings to run the model with."""
        return RunSettings(
            n_threads=self.profile.n_threads,
            context=self.footprint.context,
            batch=self._batch,
            cache=self.footprint.cache,
        )

    @property
    def _batch(self) -> int:
        """The best batch of those whose activations fit."""
        wanted = _prefill_batch(self.predictor) if self.predictor else PREFILL_CHUNK
        return next((size for size in BATCHES if size <= wanted and self._has_room_for(size)), self.footprint.batch)

    def _has_room_for(self, batch: int) -> bool:
        footprint = self.footprint.of_batch(batch)
        needed = footprint.total_bytes if self.fits else footprint.least_bytes
        return batch <= self.footprint.batch or needed <= self.usable_bytes

    @cached_property
    def prediction(self) -> Prediction | None:
        """Predicted speeds; ``None`` when the model does not fit or the cost of a pass is not known."""
        predictor = self.predictor
        if predictor is None:
            return None
        rates = predictor.rates
        prompt_tokens = min(self.prompt_tokens, self.footprint.context)
        prefill, decode = predictor.prefill(prompt_tokens, batch=self.settings.batch), predictor.decode(0)
        return Prediction(
            prompt_tokens=prompt_tokens,
            ttft_s=prefill.total_s,
            load_s=(self.footprint.resident_bytes + self.held_experts_bytes) / rates.storage_bytes,
            prefill_tokens_per_s=prompt_tokens / prefill.total_s,
            decode_tokens_per_s=_per_second(decode),
            decode_tokens_per_s_at_context=_per_second(predictor.decode(self.footprint.context)),
            relative_error=rates.relative_error,
            prefill_limit=prefill.limit,
            decode_limit=decode.limit,
        )

    def summary(self, model: str, *, card_bytes: int | None = None) -> PlanSummary:
        """The values of the plan; ``model`` is the name that the user gave, ``card_bytes`` as for :meth:`gpu`."""
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
            missing_from=self.missing_from,
            file_bytes=footprint.weight_bytes,
            held_experts_share=self.held_experts_share,
            memory_map=self.memory_map(),
            prediction=self.prediction,
            graphics=self.graphics,
            gpu=self.gpu(card_bytes=card_bytes),
            settings=self.settings,
        )


def _per_second(time: PassTime) -> float:
    return 1 / time.total_s


def _prefill_batch(predictor: Predictor) -> int:
    """Tokens per prefill pass: the most whose pass takes at most two seconds.

    With streamed experts every pass reads nearly all of them from storage, so passes are as long as possible. Elsewhere
    passes are not so short that the whole prompt takes more than a quarter longer.
    """
    if predictor.resident_share < 1:
        return BATCHES[0]
    times = {size: predictor.prefill(size).total_s for size in BATCHES}
    fastest = min(seconds / size for size, seconds in times.items())
    efficient = [size for size, seconds in times.items() if seconds / size <= _MAX_SLOWDOWN * fastest]
    return next((size for size in efficient if times[size] <= _MAX_PASS_S), efficient[-1])
