"""Time of a forward pass on a device: a roofline over its cost (Williams, Waterman and Patterson, CACM 52(4), 2009).

A product takes the larger of the times to read its weights and to compute, each block format for itself, since some
of few bytes take many instructions with one token; attention the sum of its operations and of
reading the KV cache; every kernel call a constant; streamed experts the time to read them from storage. These run one
after another, so their times add up.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from sprat.devices.parts import Basis
from sprat.devices.plan.counted import load_counted
from sprat.devices.plan.efficiency import Efficiency, Factors
from sprat.devices.plan.footprint import FormatShare, PassCost
from sprat.devices.profile import DeviceProfile, Storage

__all__ = ["PREFILL_CHUNK", "Limit", "PartTimes", "PassTime", "Predictor", "Rates", "device_rates"]

PREFILL_CHUNK = 512  # tokens of a prompt in one pass, unless that takes too long
_LANES = {"avx512": 16, "avx2": 8}  # float32 lanes of a vector register; 4 elsewhere
_OUT_OF_CACHE = 3  # reading this many times the cache size in a loop hits nothing in the cache


class Limit(enum.StrEnum):
    """Bottleneck of a pass."""

    MEMORY = "memory speed"
    COMPUTE = "compute"
    STORAGE = "storage"
    CALLS = "call overhead"  # only models of a few million weights


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTime:
    """Seconds of one or more passes, by resource."""

    memory_s: float = 0.0
    compute_s: float = 0.0
    storage_s: float = 0.0
    calls_s: float = 0.0

    def __add__(self, other: PassTime) -> PassTime:
        names = (field.name for field in fields(self))
        return PassTime(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def total_s(self) -> float:
        """The sum."""
        return self.memory_s + self.compute_s + self.storage_s + self.calls_s

    @property
    def limit(self) -> Limit:
        """The resource that takes the most time."""
        spent = (self.memory_s, self.compute_s, self.storage_s, self.calls_s)
        return max(zip(spent, Limit, strict=True))[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Rates that sprat's kernels reach on a device, per second; their weakest basis; the error of what they predict."""

    read_bytes: float
    cache_bytes: int  # CPU cache: up to this size nothing is read from memory
    n_lanes: int  # float32 lanes of a vector register
    gemm_ops: float  # int8, with 512 tokens
    gemv_ops: float  # int8, with one token
    attention_ops: float  # float32
    call_s: float  # seconds of an empty kernel call
    storage_bytes: float  # sequential reads
    random_bytes: float  # random reads of an expert's size
    basis: Basis
    relative_error: float

    def missed_share(self, n_bytes: float) -> float:
        """Share of ``n_bytes`` per pass that misses the CPU cache: 0 up to its size, 1 from three times that."""
        if not self.cache_bytes:
            return 1.0
        return min(max(n_bytes / self.cache_bytes - 1, 0.0) / (_OUT_OF_CACHE - 1), 1.0)


def device_rates(profile: DeviceProfile, efficiency: Efficiency, storage: Storage) -> Rates:
    """The rates of ``profile`` with weights on ``storage``: measured, else counted, else shares of its peaks."""
    memory, peaks = profile.memory, efficiency.peaks
    read_gbps = memory.read_gbps.value * (1 if memory.sustained_gbps else peaks.memory_share.value)
    clock_ghz = max(cores.clock_ghz.value for cores in profile.fast_cores)
    features = {name for cores in profile.fast_cores for name in cores.features}
    gemm, gemv, attention = _kernel_gops(profile, efficiency)
    return Rates(
        read_bytes=1e9 * read_gbps,
        cache_bytes=int(memory.cache_bytes.value) if memory.cache_bytes else 0,
        n_lanes=next((count for name, count in _LANES.items() if name in features), 4),
        gemm_ops=1e9 * gemm,
        gemv_ops=1e9 * gemv,
        attention_ops=1e9 * attention,
        call_s=1e-6 * profile.compute.call_us.value if profile.compute else peaks.call_cycles.value / (1e9 * clock_ghz),
        storage_bytes=1e6 * storage.sequential_mbps.value,
        random_bytes=1e6 * (storage.random_1mib_mbps or storage.sequential_mbps).value,
        basis=_weakest(profile),
        relative_error=_relative_error(profile, efficiency),
    )


def _kernel_gops(profile: DeviceProfile, efficiency: Efficiency) -> tuple[float, float, float]:
    """int8 GEMM, int8 GEMV, float32 attention: 10^9 operations per second."""
    if profile.compute:
        measured = profile.compute
        return measured.int8_gops.value, measured.one_token_gops.value, measured.f32_gflops.value
    peaks = efficiency.peaks
    attention = sum(cores.f32_gflops for cores in profile.fast_cores) * peaks.f32_share.value
    counted = load_counted()
    if counted.has(profile.fast_cores):
        # Factors of products are shares of a probe's rates; counts are of the products themselves.
        one, many = (2e-9 * rate for rate in counted.products_per_second(profile.fast_cores))
        return many / efficiency.prefill.compute, one / efficiency.decode.compute, attention
    int8_peak = sum(cores.int8_gops for cores in profile.fast_cores)
    return int8_peak * peaks.int8_share.value, int8_peak * peaks.one_token_share.value, attention


def _relative_error(profile: DeviceProfile, efficiency: Efficiency) -> float:
    """Relative error by the weakest basis; smaller where the cores' speed was counted and the memory's is known."""
    counted = load_counted()
    memory = profile.memory.read_gbps.basis
    if profile.compute or memory is Basis.ASSUMED or not counted.has(profile.fast_cores):
        return efficiency.errors.of(_weakest(profile))
    return counted.error(profile.fast_cores)


def _weakest(profile: DeviceProfile) -> Basis:
    """The weaker basis of the two deciding values: memory bandwidth and compute rate."""
    cores = profile.fast_cores[0]
    computing = profile.compute.int8_gops if profile.compute else cores.int8_ops_per_cycle
    bases = [value.basis if value else Basis.ASSUMED for value in (profile.memory.read_gbps, computing)]
    return max(bases, key=list(Basis).index)


@dataclass(frozen=True, slots=True)
class _Product:
    """Cost of a matrix product."""

    n_bytes: float  # read from memory
    ops: float
    rows: float  # output values
    formats: Sequence[FormatShare] = ()  # of its weights, with one token


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTimes:
    """Times of the parts of one pass."""

    dense: PassTime
    experts: PassTime
    attention: PassTime
    head: PassTime
    calls: PassTime

    @property
    def total(self) -> PassTime:
        """The whole pass: the parts run one after another."""
        return self.dense + self.experts + self.attention + self.head + self.calls


@dataclass(frozen=True, slots=True)
class Predictor:
    """Times of one model on one device.

    Args:
        cost: cost of a pass of the model.
        rates: rates of the device.
        efficiency: shares of these rates that the engine reaches.
        resident_share: share of the routed experts' bytes that stay in memory.
        cycles: block format -> cycles of a product with one token over those of Q4_0; 1 for others.
    """

    cost: PassCost
    rates: Rates
    efficiency: Efficiency
    resident_share: float = 1.0
    cycles: Mapping[str, float] = field(default_factory=dict)

    def decode(self, past: int) -> PassTime:
        """One token at depth ``past``."""
        return self.decode_parts(past).total

    def decode_parts(self, past: int) -> PartTimes:
        """One token at depth ``past``, part by part."""
        return self._pass(1, past, self.efficiency.decode, self.rates.gemv_ops, self._hit_share())

    def prefill(self, n_tokens: int, past: int = 0, batch: int = PREFILL_CHUNK) -> PassTime:
        """A prompt of ``n_tokens`` at depth ``past``, ``batch`` tokens per pass, first logits included."""
        total = PassTime()
        for start in range(0, n_tokens, batch):
            n_new = min(batch, n_tokens - start)
            # A long pass uses nearly every expert, whatever the last pass left in memory.
            total += self._pass(
                n_new, past + start, self.efficiency.prefill, self.rates.gemm_ops, self.resident_share
            ).total
        return total

    def _pass(self, n_tokens: int, past: int, factors: Factors, int8_ops: float, resident: float) -> PartTimes:
        cost, rates = self.cost, self.rates
        missed = rates.missed_share(cost.matrix_bytes + cost.cache_bytes_per_token * past)
        dense = _Product(
            cost.dense_bytes * missed,
            2 * n_tokens * cost.dense_weights,
            n_tokens * cost.dense_rows,
            cost.dense_formats if n_tokens == 1 else (),
        )
        # The output head runs for the last token of a pass only.
        head = _Product(cost.head_bytes * missed, 2 * cost.head_weights, cost.head_rows, cost.head_formats)
        return PartTimes(
            dense=self._product(dense, factors, int8_ops),
            experts=self._experts(n_tokens, factors, int8_ops, missed, resident),
            attention=self._attention(n_tokens, past, factors, missed),
            head=self._product(head, self.efficiency.decode, rates.gemv_ops),
            calls=PassTime(calls_s=cost.n_calls * rates.call_s * factors.calls),
        )

    def _product(self, product: _Product, factors: Factors, int8_ops: float, reached: float = 1.0) -> PassTime:
        memory_s = product.n_bytes / (self.rates.read_bytes * factors.memory * reached)
        compute_s = product.ops / (int8_ops * factors.compute * reached)
        total = PassTime(compute_s=product.rows * factors.row / (int8_ops * factors.compute))
        for part in product.formats or (FormatShare("Q4_0", 1.0, 1.0),):
            reading = memory_s * part.bytes_share
            computing = compute_s * part.weights_share * self.cycles.get(part.format, 1.0)
            total += PassTime(memory_s=reading) if reading > computing else PassTime(compute_s=computing)
        return total

    def _experts(self, n_tokens: int, factors: Factors, int8_ops: float, missed: float, resident: float) -> PassTime:
        cost = self.cost
        n_bytes = cost.experts_read(n_tokens) * cost.expert_bytes
        chosen = n_tokens * cost.n_moe_layers * cost.n_experts_per_token
        formats = cost.expert_formats if n_tokens == 1 else ()
        product = _Product(n_bytes * missed, 2 * chosen * cost.expert_weights, chosen * cost.expert_rows, formats)
        storage_s = n_bytes * (1 - resident) / (self.rates.random_bytes * factors.storage)
        return self._product(product, factors, int8_ops, factors.experts) + PassTime(storage_s=storage_s)

    def _attention(self, n_tokens: int, past: int, factors: Factors, missed: float) -> PassTime:
        cost, rates = self.cost, self.rates
        reached = factors.latent if cost.is_mla else factors.grouped
        ops = cost.attention_ops(n_tokens, past, rates.n_lanes) + n_tokens * cost.attention_values * factors.queries
        return PassTime(
            memory_s=cost.cache_bytes_per_token * past * missed / (rates.read_bytes * factors.memory),
            compute_s=ops / (rates.attention_ops * reached),
        )

    def _hit_share(self) -> float:
        """Share of a token's experts that are found in memory, if routing is uniform: the resident share.

        With LRU replacement none is found if fewer experts are resident than one token uses.
        """
        per_token = self.cost.n_experts_per_token / self.cost.n_experts if self.cost.n_experts else 0.0
        return self.resident_share if self.resident_share >= per_token else 0.0
