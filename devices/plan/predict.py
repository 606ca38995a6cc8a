"""How long a forward pass takes on a device: a roofline over its work.

Products cost the larger of reading their weights and computing with them; attention its operations and reading the
cache; every kernel call a constant; experts that are not in memory the time to read them from storage. These follow one
another, so they add up.
(The roofline: Williams, Waterman and Patterson, CACM 52(4), 2009.)
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

from sprat.devices.parts import Basis
from sprat.devices.plan.efficiency import Calibration, Efficiency
from sprat.devices.plan.footprint import Work
from sprat.devices.profile import DeviceProfile, Storage

__all__ = ["PREFILL_CHUNK", "Limit", "PassTime", "Predictor", "Rates", "device_rates"]

PREFILL_CHUNK = 512  # tokens that the engine passes at once, where that does not take too long
_LANES = {"avx512": 16, "avx2": 8}  # float32 numbers of a vector register; four everywhere else
_OUT_OF_CACHE = 3  # times the cache, read in a circle: nothing is found again


class Limit(enum.StrEnum):
    """What a pass waits for."""

    MEMORY = "memory speed"
    COMPUTE = "compute"
    STORAGE = "storage"
    CALLS = "call overhead"  # only models of a few million weights


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTime:
    """Seconds of one or more passes, by what they are spent on."""

    memory_s: float = 0.0
    compute_s: float = 0.0
    storage_s: float = 0.0
    calls_s: float = 0.0

    def __add__(self, other: PassTime) -> PassTime:
        names = (field.name for field in fields(self))
        return PassTime(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.memory_s + self.compute_s + self.storage_s + self.calls_s

    @property
    def limit(self) -> Limit:
        """What most of it is spent on."""
        spent = (self.memory_s, self.compute_s, self.storage_s, self.calls_s)
        return max(zip(spent, Limit, strict=True))[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What sprat's kernels get from a device, per second, and the weakest basis of these figures."""

    read_bytes: float
    cache_bytes: int  # what needs no more is read from the cache, without waiting for memory
    n_lanes: int  # float32 numbers of a vector register
    many_tokens_ops: float  # int8
    one_token_ops: float  # int8
    attention_ops: float  # float32
    call_s: float  # of one kernel call, not per second
    storage_bytes: float  # in sequence
    random_bytes: float  # an expert here, an expert there
    basis: Basis

    def missed_share(self, n_bytes: float) -> float:
        """Of ``n_bytes`` that every pass reads, the share that comes from memory: more and more beyond the cache."""
        if not self.cache_bytes:
            return 1.0
        return min(max(n_bytes / self.cache_bytes - 1, 0.0) / (_OUT_OF_CACHE - 1), 1.0)


def device_rates(profile: DeviceProfile, calibration: Calibration, storage: Storage) -> Rates:
    """The rates of ``profile`` with weights on ``storage``: measured ones, else its peaks times the usual shares."""
    memory, peaks = profile.memory, calibration.peaks
    read_gbps = memory.read_gbps.value * (1 if memory.sustained_gbps else peaks.memory_share.value)
    clock_ghz = max(cores.clock_ghz.value for cores in profile.fast_cores)
    features = {name for cores in profile.fast_cores for name in cores.features}
    many, one, attention = _kernel_gops(profile, calibration)
    return Rates(
        read_bytes=1e9 * read_gbps,
        cache_bytes=int(memory.cache_bytes.value) if memory.cache_bytes else 0,
        n_lanes=next((count for name, count in _LANES.items() if name in features), 4),
        many_tokens_ops=1e9 * many,
        one_token_ops=1e9 * one,
        attention_ops=1e9 * attention,
        call_s=1e-6 * profile.compute.call_us.value if profile.compute else peaks.call_cycles.value / (1e9 * clock_ghz),
        storage_bytes=1e6 * storage.sequential_mbps.value,
        random_bytes=1e6 * (storage.random_1mib_mbps or storage.sequential_mbps).value,
        basis=_weakest(profile),
    )


def _kernel_gops(profile: DeviceProfile, calibration: Calibration) -> tuple[float, float, float]:
    """Int8 with many tokens, int8 with one token, float32: 10^9 operations per second."""
    if profile.compute:
        measured = profile.compute
        return measured.int8_gops.value, measured.one_token_gops.value, measured.f32_gflops.value
    peaks = calibration.peaks
    int8_peak = sum(cores.int8_gops for cores in profile.fast_cores)
    f32_peak = sum(cores.f32_gflops for cores in profile.fast_cores)
    return (
        int8_peak * peaks.int8_share.value,
        int8_peak * peaks.one_token_share.value,
        f32_peak * peaks.f32_share.value,
    )


def _weakest(profile: DeviceProfile) -> Basis:
    """The weakest basis among the figures that decide: how fast memory is read, and how fast cores compute."""
    cores = profile.fast_cores[0]
    computing = profile.compute.int8_gops if profile.compute else cores.int8_ops_per_cycle
    bases = [figure.basis if figure else Basis.ASSUMED for figure in (profile.memory.read_gbps, computing)]
    return max(bases, key=list(Basis).index)


@dataclass(frozen=True, slots=True)
class _Product:
    """What a product of matrices asks for."""

    n_bytes: float  # out of memory
    ops: float
    rows: float  # numbers of its result


@dataclass(frozen=True, slots=True)
class Predictor:
    """Times of one model on one device.

    Args:
        work: of the model.
        rates: of the device.
        calibration: what share of them the engine reaches.
        held: share of the experts' bytes that stay in memory.
    """

    work: Work
    rates: Rates
    calibration: Calibration
    held: float = 1.0

    def decode(self, past: int) -> PassTime:
        """One token behind ``past`` others."""
        return self._pass(1, past, self.calibration.decode, self.rates.one_token_ops, self._hit_share())

    def prefill(self, n_tokens: int, past: int = 0, batch: int = PREFILL_CHUNK) -> PassTime:
        """A prompt of ``n_tokens`` behind ``past`` others, ``batch`` tokens in a pass, first logits included."""
        total = PassTime()
        for start in range(0, n_tokens, batch):
            n_new = min(batch, n_tokens - start)
            # A long pass asks for nearly every expert, whatever the last one left in memory.
            total += self._pass(n_new, past + start, self.calibration.prefill, self.rates.many_tokens_ops, self.held)
        return total

    def _pass(self, n_tokens: int, past: int, share: Efficiency, int8_ops: float, in_memory: float) -> PassTime:
        work, rates = self.work, self.rates
        missed = rates.missed_share(work.matrix_bytes + work.cache_bytes_per_token * past)
        dense = _Product(work.dense_bytes * missed, 2 * n_tokens * work.dense_weights, n_tokens * work.dense_rows)
        times = self._product(dense, share, int8_ops)
        times += self._experts(n_tokens, share, int8_ops, missed, in_memory)
        times += self._attention(n_tokens, past, share, missed)
        # Whatever the pass, only its last token meets the head.
        head = _Product(work.head_bytes * missed, 2 * work.head_weights, work.head_rows)
        times += self._product(head, self.calibration.decode, rates.one_token_ops)
        return times + PassTime(calls_s=work.n_calls * rates.call_s * share.calls)

    def _product(self, product: _Product, share: Efficiency, int8_ops: float, reached: float = 1.0) -> PassTime:
        memory_s = product.n_bytes / (self.rates.read_bytes * share.memory * reached)
        compute_s = product.ops / (int8_ops * share.compute * reached)
        rows = PassTime(compute_s=product.rows * share.row / (int8_ops * share.compute))
        return rows + (PassTime(memory_s=memory_s) if memory_s > compute_s else PassTime(compute_s=compute_s))

    def _experts(self, n_tokens: int, share: Efficiency, int8_ops: float, missed: float, in_memory: float) -> PassTime:
        work = self.work
        n_bytes = work.experts_read(n_tokens) * work.expert_bytes
        chosen = n_tokens * work.n_mixtures * work.n_experts_per_token
        product = _Product(n_bytes * missed, 2 * chosen * work.expert_weights, chosen * work.expert_rows)
        storage_s = n_bytes * (1 - in_memory) / (self.rates.random_bytes * share.storage)
        return self._product(product, share, int8_ops, share.experts) + PassTime(storage_s=storage_s)

    def _attention(self, n_tokens: int, past: int, share: Efficiency, missed: float) -> PassTime:
        work, rates = self.work, self.rates
        reached = share.latent if work.is_latent else share.grouped
        ops = work.attention_ops(n_tokens, past, rates.n_lanes) + n_tokens * work.attention_numbers * share.queries
        return PassTime(
            memory_s=work.cache_bytes_per_token * past * missed / (rates.read_bytes * share.memory),
            compute_s=ops / (rates.attention_ops * reached),
        )

    def _hit_share(self) -> float:
        """Of the experts that a token chooses, the share found in memory: what is held, if all are equally likely.

        A store that replaces the least recently used finds none when it holds less than one token chooses.
        """
        per_token = self.work.n_experts_per_token / self.work.n_experts if self.work.n_experts else 0.0
        return self.held if self.held >= per_token else 0.0
